#!/usr/bin/python3
"""A stand-in for millrace-load: takes the options that the comparison gives it and answers with plausible JSON after a moment. What it is to pretend
comes in FAKE_LOAD, a JSON object that is merged into the result ({"sleep": s, "exit": code, "errors": {…}, …})."""
import argparse
import json
import os
import signal
import sys
import time

p = argparse.ArgumentParser(allow_abbrev=False)
for value in ("core", "main-core", "memory-mb", "file-prefix", "device", "router", "dut", "role", "clients", "target", "servers", "connections", "rate",
              "requests-per-connection", "response-body", "warmup", "duration", "host", "sni", "targets", "idle", "ramp", "hold", "json", "interval"):
    p.add_argument("--" + value)
for flag in ("quiet", "tls-clients", "tls-resume", "start-on-signal"):
    p.add_argument("--" + flag, action="store_true")
a = p.parse_args()
fake = json.loads(os.environ.get("FAKE_LOAD", "{}"))
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
signal.signal(signal.SIGUSR1, lambda *_: ended.append(2))
if a.start_on_signal:
    print("millrace-load: waiting for SIGUSR1", file=sys.stderr, flush=True)
    while 2 not in ended:
        time.sleep(0.01)
end = time.monotonic() + fake.get("sleep", float(a.warmup or 0) + float(a.duration or 0))
while time.monotonic() < end and 1 not in ended:
    time.sleep(0.01)
if "exit" in fake:
    sys.exit(fake["exit"])
rate = float(a.rate or 100_000)
slow = 20.0 if a.target and a.target.startswith("10.65") else 90.0
result = {"version": 1, "clean": True, "seconds": float(a.duration), "requests": int(rate * float(a.duration)), "requests_per_s": rate, "connections": 10,
          "connections_per_s": rate / 4, "handshakes_full_per_s": 0.0 if a.tls_resume else 1500.0, "handshakes_resumed_per_s": 4000.0 if a.tls_resume else 0.0,
          "response_gbit_per_s": 7.5, "frames_per_s": {"rx": rate * 2, "tx": rate * 2},
          "latency_us": {"mean": slow, "p50": slow, "p90": slow * 1.2, "p99": slow * 2, "p999": slow * 5, "max": slow * 9},
          "idle_connections": int(a.idle or 0), "server_requests": 0, "busy": 0.5,
          "errors": {"status": 0, "length": 0, "body": 0, "reset": 0, "timeout": 0, "retransmissions": 0, "rx_lost": 0, "tls": 0, "unexpected": 0}}
result["errors"].update(fake.pop("errors", {}))
result.update({k: v for k, v in fake.items() if k != "sleep"})
with open(a.json, "w") as f:
    json.dump(result, f)
sys.exit(0)
