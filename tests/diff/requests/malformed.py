from case import one, raw

PORT = 8165
LOGS = ["malformed", "malformed_strict", "malformed_drop"]
G = "GET / HTTP/1.1\nHost: a\n"
TEXTS = {
    "no host": "GET / HTTP/1.1\n\n", "two hosts": G + "Host: b\n\n", "two same hosts": G + "Host: a\n\n", "bad host": "GET / HTTP/1.1\nHost: a b\n\n", "host with at": "GET / HTTP/1.1\nHost: u@a\n\n", "garbage": "hello\n\n", "only line ends": "\n\n\n\n", "line ends before": "\n\n" + G + "\n",
    "http/0.9": "GET /\n\n", "http/2.0": "GET / HTTP/2.0\nHost: a\n\n", "http/1.2": "GET / HTTP/1.2\nHost: a\n\n", "http/1.10": "GET / HTTP/1.10\nHost: a\n\n", "lower http": "GET / http/1.1\nHost: a\n\n", "two spaces": "GET  / HTTP/1.1\nHost: a\n\n", "trailing space": "GET / HTTP/1.1 \nHost: a\n\n",
    "tab": "GET\t/ HTTP/1.1\nHost: a\n\n", "space in target": "GET /a b HTTP/1.1\nHost: a\n\n", "bad method": "G@T / HTTP/1.1\nHost: a\n\n", "no target": "GET HTTP/1.1\nHost: a\n\n", "relative": "GET abc HTTP/1.1\nHost: a\n\n", "empty name": G + ": x\n\n", "space before colon": G + "x : y\n\n", "no colon": G + "xy\n\n",
    "fold": G + "x: a\n b\n\n", "fold first": "GET / HTTP/1.1\n Host: a\n\n", "bad name": G + "x(y): 1\n\n", "nul in value": G + "x: a\0b\n\n", "nul in name": G + "x\0: a\n\n", "control in value": G + "x: a\x01b\n\n", "del in value": G + "x: a\x7fb\n\n", "cr in value": G + "x: a\rb\n\n",
    "length and chunked": "POST / HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\n\n", "two lengths": "POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 4\n\nabc", "two same lengths": "POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 3\n\nabc",
    "length list": "POST / HTTP/1.1\nHost: a\nContent-Length: 3, 3\n\nabc", "negative": "POST / HTTP/1.1\nHost: a\nContent-Length: -1\n\n", "plus": "POST / HTTP/1.1\nHost: a\nContent-Length: +3\n\nabc", "hex": "POST / HTTP/1.1\nHost: a\nContent-Length: 0x3\n\nabc", "empty length": "POST / HTTP/1.1\nHost: a\nContent-Length:\n\n",
    "huge": "POST / HTTP/1.1\nHost: a\nContent-Length: 99999999999999999999999\n\n", "te gzip": "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\n\n", "te gzip chunked": "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n0\n\n", "te chunked twice": "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
    "te identity": "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n", "bad chunk": "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nzz\n", "chunk no end": "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabcX\n0\n\n", "connect": "CONNECT a:80 HTTP/1.1\nHost: a:80\n\n",
    "upgrade": G + "Connection: upgrade\nUpgrade: websocket\n\n", "h2c": G + "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n", "trace": "TRACE / HTTP/1.1\nHost: a\n\n", "many headers": G + "".join(f"x-{i}: {i}\n" for i in range(120)) + "\n", "long header": G + "x: " + "y" * 70000 + "\n\n",
    "long target": "GET /" + "y" * 70000 + " HTTP/1.1\nHost: a\n\n", "64k header ok": G + "x: " + "y" * 50000 + "\n\n", "underscore": G + "x_y: 1\n\n", "fragment": "GET /a#b HTTP/1.1\nHost: a\n\n", "latin path": "GET /\xe9 HTTP/1.1\nHost: a\n\n", "preface": "PRI * HTTP/2.0\n\nSM\n\n", "absolute bad": "GET http:// HTTP/1.1\nHost: a\n\n",
    "absolute userinfo": "GET http://u@b/ HTTP/1.1\nHost: a\n\n", "absolute ftp": "GET ftp://b/ HTTP/1.1\nHost: a\n\n", "absolute port": "GET http://b:99999/ HTTP/1.1\nHost: a\n\n",
}
CASES = [raw(name, text) for name, text in TEXTS.items()]
CASES += [raw("bare lf", b"GET / HTTP/1.1\nHost: a\n\n"), raw("bare lf in one", b"GET / HTTP/1.1\r\nHost: a\nx: y\r\n\r\n"), raw("tls hello", b"\x16\x03\x01\x00\x05hello", timeout=1.5), one("underscore refused", headers=["x_y: 1"], port=8166), one("underscore dropped", headers=["x_y: 1", "x-z: 2"], port=8167)]
for case in CASES:
    case.timeout = 1.2  # some are answered by neither
