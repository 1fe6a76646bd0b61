from case import one

PORT = 8111
LOGS = ["headers"]
GIVEN = ["x-append: given", "x-absent: given", "x-over: given", "x-over: twice", "x-exist: given", "x-old-append: given", "x-rm: 1", "X-Rm-Up: 1", "x-rm-vh: 1", "x-rm-table: 1", "x-rm-weighted: 1",
         "x-level: given", "x-upper: given", "x-none: given", "User-Agent: given"]
CASES = [one("nothing given", "/actions"), one("all given", "/actions", headers=GIVEN), one("responses", "/actions", headers=["x-do: remove-me"]), one("response date server", "/actions", headers=["x-do: dated"]),
         one("weighted", "/weighted", headers=GIVEN), one("weighted response", "/weighted", headers=["x-do: remove-me"]), one("direct", "/direct"), one("gone", "/gone"), one("rest", "/", headers=GIVEN),
         one("rest response", "/", headers=["x-do: remove-me"]), one("reversed", "/", headers=GIVEN, port=8112), one("reversed response", "/", headers=["x-do: remove-me"], port=8112)]
