from case import one

PORT = 8105
LOGS = ["header_matches"]
ONE = ["x-exact: One", "x-exact: one", "x-exact: One1", "x-exact-i: oNE", "x-prefix: Prefix", "x-prefix: prefix", "x-suffix: affix", "x-suffix: fixed", "x-contains: amidst",
       "x-contains: aMIDst", "x-contains-i: amidst", "x-regex: abcab", "x-regex: abcd", "x-regex: xabc", "x-present:", "x-present: 1", "x-ask: absent", "x-ask: inv", "x-ask: inv-exact",
       "x-ask: inv-empty", "x-ask: missing-empty", "x-ask: missing-regex", "x-range: -10", "x-range: 9", "x-range: 10", "x-range: 0", "x-range: +5", "x-range: 5x", "x-range: 0x5", "x-range:",
       "x-range: 99999999999999999999", "x-range: -11", "x-range: 05", "x-ask: inv-range", "x-upper: U", "x-old: old", "x-old-prefix: older", "x-old-regex: oxd", "x-old-contains: oldie",
       "x-old-suffix: old", "x-only-name: v", "X-EXACT: One", "x-forwarded-proto: https", "content-type: application/grpc", "content-type: application/grpc+proto", "content-type: application/grpcx",
       "cookie: a=1; b=2"]
SEVERAL = [["x-ask: absent", "x-absent: here"], ["x-ask: inv", "x-inv: a"], ["x-ask: inv-exact", "x-inv: bad"], ["x-ask: inv-exact", "x-inv: good"], ["x-ask: inv-empty", "x-inv: bad"],
           ["x-ask: inv-range", "x-inv-range: 3"], ["x-ask: inv-range", "x-inv-range: 9"], ["x-ask: inv-range", "x-inv-range: x"], ["x-ask: missing-empty", "x-gone:"], ["x-a: a"], ["x-a: a", "x-b: b"],
           ["x-exact: One", "x-exact: Two"], ["x-exact: Two", "x-exact: One"], ["x-contains: a", "x-contains: mid"], ["x-regex: a", "x-regex: b"], ["x-range: 1", "x-range: 2"], ["x-prefix: Pre", "x-prefix: x"],
           ["cookie: a=1", "cookie: b=2"], ["x-ask: inv-exact", "x-inv: bad", "x-inv: good"], ["x-ask: inv-exact", "x-inv: good", "x-inv: bad"], ["x-ask: inv-exact", "x-inv: a", "x-inv: b"],
           ["x-ask: inv-range", "x-inv-range: 3", "x-inv-range: 9"]]
CASES = [one(h, headers=[h]) for h in ONE] + [one(" and ".join(hs), headers=hs) for hs in SEVERAL]
CASES += [one("method", method="DELETE"), one("authority", host="x.auth.test"), one("authority with port", host="x.auth.test:1"), one("host", host="host.test"), one("path", "/a?special"), one("nothing"),
          one("absolute https", "https://h/")]
