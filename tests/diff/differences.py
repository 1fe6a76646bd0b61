"""Where Millrace means to differ from Envoy. Everything else that differs is an error, and so is an entry for one case that no longer differs.

INTENDED: (configuration, case, aspects, reason); `*` as in shell patterns. Aspects: status, headers, body, end (whether the connection stays),
upstream (what the upstream server got), tls, cipher.
INTENDED_LOG: (configuration, pattern of what differs in a log line, what stands for it on both sides, reason); a line of
which nothing is left is not compared."""
import fnmatch
import re

_LINGERS = ("Millrace reads what the client still sends before it closes (RFC 9112 9.6), so that the answer is not lost; Envoy closes with unread data, "
            "which the kernel turns into a reset")
_HTTP10_CHUNKED = "transfer-encoding in an HTTP/1.0 request is faulty framing (RFC 9112 6.1): refused, since a 1.0 proxy before us may have seen other borders"
_UNASKED_101 = "a 101 that nobody asked for cannot be forwarded (RFC 9110 15.2.2); Envoy passes it on and then holds a connection in no protocol"

_IDLE = "an idle connection is closed when its time is over; Envoy lets drain_timeout (5 s) pass first, a grace meant for HTTP/2's GOAWAY"
_CIPHER = "the server's order: AES-128-GCM first, which the processor does fastest; Envoy takes the client's order among equals"
_PATH_AS_CAME = "a refused path is logged as it came, not with its slashes unescaped"
_EMPTY = "an empty field is written as '-': the record does not tell empty from absent"
_STRICT = "RFC 9112 strictly, against smuggling: a second Host (3.2), folded fields (5.2), a bare CR (2.2), a chunk without its end (7.1) are 400"
_MEMBER = "white space behind a comma does not make another member of x-forwarded-host: the last one is not repeated"
_HALF_CLOSE = "each direction of a tunnel ends by itself, and one that both sides have ended is no error; to Envoy the first end is a disconnect"
_GAVE_UP = "the bad chunk came with the head: the upstream connection is reset before the head was read there"
_LIES = "how far a request gets whose body lies about its length depends on what has come when, and on whether a connection to the endpoint is idle"
_SETTINGS = "our SETTINGS say the most header bytes that are taken, and nothing that is the default; Envoy's say ENABLE_CONNECT_PROTOCOL 0 and no header bytes"
_LINES = "fields that are lists stay in as many lines as they came in; Envoy joins those that it knows by name (RFC 9110 5.3: the same meaning)"

_WEB_END = "a response in base64 ends when the endpoint's does; Envoy's never ends when its last bytes come without trailers"
_WEB_HEAD = "whether the endpoint has seen the head before the body turns out to be no base64 depends on what came when"
_WEB_TRAILERS = "a response that is no gRPC becomes a head without a body, behind which no trailers follow"

INTENDED = [
    ("grpc_web", "*-text grpc-length", "body", _WEB_END), ("grpc_web", "*-text grpc-no-status", "body", _WEB_END), ("grpc_web", "*-text grpc-web", "body", _WEB_END),
    ("grpc_web", "text*,*", "upstream", _WEB_HEAD),
    ("grpc_web", "2to2 /2/trailers", "headers", _WEB_TRAILERS),
    ("compression", "838[012] text-cached *", "headers", _LINES),
    ("compression", "838[01] two accept-encodings", "upstream", _LINES),
    ("cors", "two origins", "upstream", _LINES),
    ("rewrites", "xfh two", "upstream", _MEMBER),
    ("malformed", "two hosts", "status headers body end upstream", _STRICT),
    ("malformed", "two same hosts", "status headers body end upstream", _STRICT),
    ("malformed", "fold", "status headers body end upstream", _STRICT),
    ("malformed", "cr in value", "status headers body end upstream", _STRICT),
    ("malformed", "chunk no end", "status headers body end upstream", _STRICT),
    ("malformed", "bad chunk", "upstream", _GAVE_UP),
    ("malformed", "preface", "body", _SETTINGS),
    ("passthrough", "sni unknown", "end", _LINGERS),
    ("tls", "plain", "end body", _LINGERS),
    ("tls", "*", "cipher", _CIPHER),
    ("client_cert", "*", "cipher", _CIPHER),
    ("fingerprints", "*", "cipher", _CIPHER),
    ("timeouts", "idle after request", "end", _IDLE),
    ("direct_responses", "post in two pieces", "end", _LINGERS),
    ("direct_responses", "large post", "end", _LINGERS),
    ("http10", "8156 chunked", "status headers body upstream end", _HTTP10_CHUNKED),
    ("http10", "8157 chunked", "status headers body upstream end", _HTTP10_CHUNKED),
    ("passthrough", "refused", "end", _LINGERS),
    ("limits", "*", "end body", _LINGERS),
    ("http2", "malformed lying*", "upstream", _LIES),
    ("failures", "101", "status headers body end", _UNASKED_101),
]
INTENDED_LOG = [
    ("grpc_web", r"200 flags=(?:DC details=downstream_remote_disconnect|- details=via_upstream) (rx=16 tx=(?:16|388)) ", r"200 <ended> \1 ", _WEB_END),
    ("*", r"^(POST \S+ HTTP/2 \d+ flags=UF .*) rx=\d+ ", r"\1 rx=<some> ", "whether the body comes before the endpoint refuses is a race"),
    ("http2", r"^(POST /1/x HTTP/2 0 flags=DPE details=http2\.remote_reset) rx=[03] ", r"\1 rx=<some> ", _LIES),
    ("malformed", r"^(GET|POST) / HTTP/1\.1 200 .*|^- - .*|^POST / HTTP/1\.1 400 .*", "", _STRICT),
    ("upgrades", r"(GET|CONNECT) (\S+) HTTP/1\.1 (101|200) flags=(?:DC|UC|-) details=\S+ (rx=[1-9])", r"\1 \2 HTTP/1.1 \3 <ended> \4", _HALF_CLOSE),
    ("http10", r"^POST / HTTP/1\.0 200 .* host=a .*|^- - \S+ 400 flags=DPE .*", "<chunked 1.0>", _HTTP10_CHUNKED),
    ("failures", r"^GET /x HTTP/1.1 (101|502) .*", "<protocol error>", _UNASKED_101),
    ("virtual_hosts", r"host=-? ", "host= ", _EMPTY),
    ("request_id", r"id=-?$", "id=", _EMPTY),
    ("normalization", r"^GET \S+ HTTP/1.1 400 ", "GET <refused> HTTP/1.1 400 ", _PATH_AS_CAME),
]


def excused(config, case, aspect):
    return any(fnmatch.fnmatchcase(config, c) and fnmatch.fnmatchcase(case, n) and aspect in a.split() for c, n, a, _ in INTENDED)


def stale(config, case, different):
    """Entries of this very case of which nothing differs any more."""
    return [a for c, n, a, r in INTENDED if (c, n) == (config, case) and r is not _LINGERS and not different & set(a.split())]


def normal_line(config, line):
    for c, find, stands, _ in INTENDED_LOG:
        if c in ("*", config):
            line = re.sub(find, stands, line)
    return line
