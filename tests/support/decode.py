"""Content codings undone by the libraries that the product is built with: zlib's own module, brotli and zstd through ctypes, so that no Python
package is needed. decode() also takes the front of a stream and gives what can be read of it."""
import ctypes
import zlib


def _gzip(data):
    d = zlib.decompressobj(16 + zlib.MAX_WBITS)
    out = d.decompress(data)
    return out, d.eof and not d.unused_data


def _brotli(data):
    lib = ctypes.CDLL("libbrotlidec.so.1")
    lib.BrotliDecoderCreateInstance.restype = ctypes.c_void_p
    state = ctypes.c_void_p(lib.BrotliDecoderCreateInstance(None, None, None))
    source = ctypes.create_string_buffer(data, len(data))
    next_in, left_in = ctypes.cast(source, ctypes.c_void_p), ctypes.c_size_t(len(data))
    out, size = b"", 65536
    buffer = ctypes.create_string_buffer(size)
    while True:
        next_out, left_out = ctypes.cast(buffer, ctypes.c_void_p), ctypes.c_size_t(size)
        code = lib.BrotliDecoderDecompressStream(state, ctypes.byref(left_in), ctypes.byref(next_in), ctypes.byref(left_out), ctypes.byref(next_out), None)
        out += buffer.raw[:size - left_out.value]
        if code != 3:  # BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT
            break
    lib.BrotliDecoderDestroyInstance(state)
    if code == 0:
        raise ValueError("not brotli")
    return out, code == 1 and left_in.value == 0


class _ZstdBuffer(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def _zstd(data):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_createDCtx.restype = ctypes.c_void_p
    lib.ZSTD_decompressStream.restype = ctypes.c_size_t
    context = ctypes.c_void_p(lib.ZSTD_createDCtx())
    source = ctypes.create_string_buffer(data, len(data))
    taken = _ZstdBuffer(ctypes.cast(source, ctypes.c_void_p), len(data), 0)
    out, size, code, full = b"", 65536, 1, True
    buffer = ctypes.create_string_buffer(size)
    while (taken.pos < taken.size or full) and code != 0:
        made = _ZstdBuffer(ctypes.cast(buffer, ctypes.c_void_p), size, 0)
        code = lib.ZSTD_decompressStream(context, ctypes.byref(made), ctypes.byref(taken))
        if lib.ZSTD_isError(ctypes.c_size_t(code)):
            raise ValueError("not zstd")
        out += buffer.raw[:made.pos]
        full = made.pos == size
    lib.ZSTD_freeDCtx(context)
    return out, code == 0 and taken.pos == taken.size


def decode(coding, data):
    """(bytes, whether the stream ended there and nothing follows). ValueError or zlib.error: it is no such coding."""
    return {"gzip": _gzip, "br": _brotli, "zstd": _zstd}[coding](data)
