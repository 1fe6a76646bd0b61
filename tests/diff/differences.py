"""Where Millrace means to differ from Envoy. Everything else that differs is an error, and so is an entry here that no longer does.

INTENDED: (configuration, case, aspect, reason); `*` as in shell patterns. Aspects: status, headers, body, end (whether the connection stays), upstream
(what the upstream server got), tls, log (the case is then the line's text, without the parts that vary)."""

INTENDED = [
]

# (configuration, text to find in a log line, what stands for it on both sides, reason)
INTENDED_LOG = [
]


def normal_line(config, line):
    for c, find, stands, _ in INTENDED_LOG:
        if c in ("*", config):
            line = line.replace(find, stands)
    return line
