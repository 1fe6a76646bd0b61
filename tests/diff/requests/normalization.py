from case import one

PORT = 8140
LOGS = ["norm_off", "norm_on", "norm_merge", "norm_merge_only", "norm_reject", "norm_redirect", "norm_forward"]
PATHS = ["/a/../b", "/a/./b/.", "/../..", "//a//b", "/a%2fb", "/a%5Cb", "/a%2F..%2Fb?x=%2f", "/a\\b", "/%2e%2e/a", "/%41%zz", "/a%00b", "/a?b=../c//d", "/a#b"]
CASES = [one(f"{log} {p}", p, port=port) for log, port in zip(LOGS, range(8140, 8147)) for p in PATHS]
