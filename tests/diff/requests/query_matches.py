from case import one

PORT = 8106
LOGS = ["query_matches"]
CASES = [one(q, "/p?" + q) for q in (
    "e=One", "e=one", "e=One&e=Two", "e=Two&e=One", "e", "e=", "ei=ONE", "p=Prefix", "s=affix", "c=amids", "r=abc", "r=abd", "here", "here=", "here=1", "Here=1", "a=1&b=2", "b=2&a=1", "a=1", "a=1;b=2",
    "ask=absent", "ask=absent&nope=1", "nameonly=x", "nameonly", "e=%4fne", "%65=One", "sp=a%20b", "sp=a+b", "em=", "em", "em=x", "x=1&&e=One", "=x&e=One", "e=One#f", "?e=One", "e=One&", "e==One", "")]
CASES += [one("no query", "/p")]
