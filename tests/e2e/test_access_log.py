"""Access logs as an operator has them: rotated under load without a lost line, filtered; and the form of the gateway's own answers."""
import json
import os
import re
import signal
import threading

import lab as laboratory
from conftest import until

URL = "http://10.77.1.1"


def test_rotation_loses_no_line(gateway):
    """logrotate's way, five times while requests come: rename, SIGUSR1. Every request has its line in exactly one of the files."""
    log = os.path.join(gateway.lab.dir, "access.log")
    tag, asked, stop = gateway.tag(), [], threading.Event()

    def ask():
        with gateway.connect() as c:
            while not stop.is_set():
                c.request(f"/who?n={len(asked)}", headers=[("user-agent", tag)]).response("GET")
                asked.append(1)
    client = threading.Thread(target=ask)
    until(lambda: os.path.exists(log), 10, "the file")
    client.start()
    rotated = []
    try:
        for i in range(5):
            until(lambda: len(asked) > 20 * (i + 1), 20, "requests")
            rotated.append(f"{log}.{i}")
            os.rename(log, rotated[-1])
            os.kill(gateway.lab.control.popen.pid, signal.SIGUSR1)
            until(lambda: os.path.exists(log), 10, "a file in the old one's place")
    finally:
        stop.set()
        client.join()

    def numbers(path):
        with open(path) as f:
            return [int(re.search(r"n=(\d+) ", line)[1]) for line in f if f'"{tag}"' in line]
    until(lambda: sum(len(numbers(p)) for p in [*rotated, log]) >= len(asked), 15, "all lines")
    found = [n for p in [*rotated, log] for n in numbers(p)]
    assert found == list(range(len(asked))), "each once, in order, over the files"
    assert sum(1 for p in rotated if numbers(p)) >= 4, "the files were really changed in between"


FORMS = 8085


def with_forms(lab, log, least):
    """A listener whose own answers have a form, and whose log takes what went wrong."""
    least = {"comparison": {"op": "GE", "value": {"default_value": least, "runtime_key": "none"}}}
    replies = {
        "mappers": [{"filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 404, "runtime_key": "none"}}}},
                     "status_code": 410, "body": {"inline_string": "no longer \"here\""},
                     "headers_to_add": [{"header": {"key": "x-was", "value": "%RESPONSE_CODE%"}}]}],
        "body_format": {"omit_empty_values": True, "json_format": {
            "error": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "path": "%REQ(:PATH)%", "who": "%REQ(x-who)%"}}}
    hosts = [{"name": "all", "domains": ["forms.test"], "routes": [
        {"match": {"prefix": "/up"}, "route": {"cluster": "py", "prefix_rewrite": "/who"}}, {"match": {"prefix": "/refused"}, "route": {"cluster": "refused"}}]}]
    h = laboratory.hcm(hosts, route_name="forms", stat_prefix="forms", local_reply_config=replies, strip_any_host_port=True, access_log=log)
    h["typed_config"]["access_log"][0].update(filter={"status_code_filter": least})
    h["typed_config"]["access_log"][0]["typed_config"]["log_format"] = {"text_format_source": {"inline_string": "%RESPONSE_CODE% %REQ(:PATH)%\n"}}
    path = os.path.join(lab.dir, "forms.json")
    with open(path, "w") as f:
        json.dump({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **laboratory.listener("forms", FORMS, h)}, f)
    lab.millctl("apply", "-f", path)  # ends when every worker has it


def test_forms_of_answers_and_filters_of_logs(gateway):
    """local_reply_config and an access log's filter, in HTTP/1 and HTTP/2, changed while the gateway runs."""
    log = os.path.join(gateway.lab.dir, "forms.log")
    with_forms(gateway.lab, log, 400)

    def ask(path, version, *args):
        out = gateway.lab.curl("-sS", "-m", "15", version, "-i", "-H", "host: forms.test:1234", *args, f"{URL}:{FORMS}{path}").stdout
        head, _, body = out.decode().partition("\r\n\r\n")
        return head.lower(), body

    for version in ("--http1.1", "--http2-prior-knowledge"):
        head, body = ask("/none", version)
        assert head.split()[1] == "410" and "x-was: 404" in head and "content-type: application/json" in head, head
        assert json.loads(body) == {"error": 'no longer "here"', "code": 410, "flags": "NR", "path": "/none"}
        head, body = ask("/refused", version, "-H", 'x-who: "\\')
        assert head.split()[1] == "503" and json.loads(body)["who"] == '"\\' and json.loads(body)["flags"] == "UF", (head, body)
        head, body = ask("/up", version)
        assert head.split()[1] == "200" and "error" not in body, "an endpoint's answer stays what it is"

    def lines():
        until(lambda: os.path.exists(log), 10, "the file")
        with open(log) as f:
            return f.read().split("\n")[:-1]
    want = ["410 /none", "503 /refused"] * 2
    until(lambda: len(lines()) >= len(want), 15, "all lines")
    assert lines() == want, "what went well is not in this log"
    with_forms(gateway.lab, log, 500)
    ask("/none", "--http1.1")
    ask("/refused", "--http1.1")
    until(lambda: len(lines()) > len(want), 15, "another line")
    assert lines() == [*want, "503 /refused"]
