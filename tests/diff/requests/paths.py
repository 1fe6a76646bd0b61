from case import one

PORT = 8104
LOGS = ["paths"]
CASES = [one(p, p) for p in (
    "/exact", "/exact/", "/exact?q", "/Exact", "/exacti", "/EXACTI", "/pre", "/prefix", "/pre/x?y", "/pr", "/dir", "/dir/", "/dir/x", "/case/x", "/CASE", "/sep", "/sep/", "/sep/x",
    "/separate", "/sep?q", "/sepI/x", "/SEPIx", "/r1/a", "/r12/b", "/r1/ab", "/r/a", "/r1/a?q=1", "/dotend", "/dot/x/end", "/dot/end/x", "/RI/x", "/ri", "/g12", "/g1234", "/order/x", "/late/x",
    "/late2/x", "/late2/y", "/q?x", "/", "/%65xact", "/exact%2f", "/pre%00x", "/pre#f", "//exact", "/./exact", "/exact/../exact")]
