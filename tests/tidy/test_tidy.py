#!/usr/bin/python3
"""Tests of the tidy check: small trees, each wrong in one way, and one that is right."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import tidy  # noqa: E402

HEADER = "#pragma once\n"

# A small tree without a finding; each test changes a file or two.
GOOD = {
    "README.md": "# Millrace\n",
    "meson.build": "project('x')\n",
    ".gitignore": "build\n",
    "lib/README.md": "x\n",
    "lib/base/README.md": "x\n",
    "lib/base/time.h": HEADER,
    "lib/io/README.md": "x\n",
    "lib/io/packet.h": HEADER + "#include <rte_mbuf.h>\n",
    "lib/io/packet_queue.h": HEADER + '#include "lib/io/packet.h"\n',
    "lib/io/port.h": HEADER + "#include <rte_ethdev.h>\n",
    "lib/http/README.md": "x\n",
    "lib/http/message.h": HEADER,
    "lib/http/h2.h": HEADER + "#include <nghttp2/nghttp2.h>\n",
    "lib/route/README.md": "x\n",
    "lib/route/matcher.h": HEADER + '#include "lib/http/message.h"\n',
    "lib/route/pattern_db.h": HEADER + "#include <hs.h>\n",
    "lib/route/README2.md": "a file of its own\n",
    "lib/tcp/README.md": "x\n",
    "lib/tcp/meson.build": "x = static_library('x', files('tcb.cc'))\n",
    "lib/tcp/tcb.cc": '#include "lib/io/packet_queue.h"\n#include "lib/base/time.h"\n// new, throw and printf( in a comment\n'
                      'const char* kText = "std::function";\nvoid* p = ::new (p) int;\n',
    "lib/stats/README.md": "x\n",
    "lib/stats/drop_reasons.def": 'DROP_REASON(kUsed, "used", kInfo, "x")\n',
    "dataplane/README.md": "x\n",
    "dataplane/main.cc": "int main() { printf(\"\"); }\n",
    "dataplane/meson.build": "executable('x', 'main.cc', 'worker.cc')\n",
    "dataplane/worker.cc": '#include "lib/tcp/tcb.h"\nauto r = stats::DropReason::kUsed;\n',
    "tests/README.md": "x\n",
    "tests/fuzz/README.md": "x\n",
    "tests/fuzz/tcp.cc": "int LLVMFuzzerTestOneInput();\n",
    "tests/fuzz/meson.build": "t = [\n  ['tcp', []],\n]\n",
    "tests/fuzz/corpus/tcp/syn": "\0\1\2\t \r",
    "tests/unit/README.md": "x\n",
    "tests/unit/tcp/tcb_test.cc": "#include <gtest/gtest.h>\n",
    "tests/unit/tcp/meson.build": "files('tcb_test.cc')\n",
}


def findings(change):
    """What the check says about GOOD with `change` applied: a list of (path, line, rule)."""
    tree = dict(GOOD)
    tree.update(change)
    with tempfile.TemporaryDirectory() as root:
        for path, text in tree.items():
            if text is None:
                continue
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", newline="") as f:
                f.write(text)
        return [(path, line, rule) for path, line, rule, _, _ in tidy.Tidy(root).run()]


class TidyTest(unittest.TestCase):
    def test_good_tree_has_no_finding(self):
        self.assertEqual(findings({}), [])

    def test_each_bad_tree_has_its_one_finding(self):
        rows = [
            # path, content, line, rule
            ("lib/tcp/a.h", HEADER + '#include "lib/io/port.h"\n', 2, "layer"),
            ("lib/tcp/a.h", HEADER + '#include "lib/http/message.h"\n', 2, "layer"),
            ("lib/base/a.h", HEADER + '#include "lib/stats/drop.h"\n', 2, "layer"),
            ("lib/route/a.h", HEADER + '#include "lib/http/h2.h"\n', 2, "layer"),
            ("lib/io/a.h", HEADER + '  #  include "lib/tcp/tcb.h"\n', 2, "layer"),
            ("lib/base/a.h", HEADER + '#include "dataplane/worker.h"\n', 2, "layer"),
            ("dataplane/a.h", HEADER + '#include "control/publish.h"\n', 2, "layer"),
            ("dataplane/a.h", HEADER + '#include "lib/api/bootstrap.h"\n', 2, "layer"),
            ("lib/base/a.h", HEADER + '#include "tests/support/x.h"\n', 2, "layer"),
            ("lib/tcp/a.h", HEADER + "#include <rte_ethdev.h>\n", 2, "library"),
            ("lib/base/a.h", HEADER + "#include <rte_mbuf.h>\n", 2, "library"),
            ("lib/route/matcher2.h", HEADER + "#include <hs.h>\n", 2, "library"),
            ("lib/route/a.h", HEADER + "#include <hs/hs_runtime.h>\n", 2, "library"),
            ("lib/http/a.h", HEADER + "#include <openssl/ssl.h>\n", 2, "library"),
            ("lib/io/a.h", HEADER + "#include <nghttp2/nghttp2.h>\n", 2, "library"),
            ("dataplane/a.h", HEADER + '#include "envoy/config/route.pb.h"\n', 2, "library"),
            ("dataplane/a.h", HEADER + "#include <grpcpp/grpcpp.h>\n", 2, "library"),
            ("lib/base/a.h", HEADER + "#include <gtest/gtest.h>\n", 2, "library"),
            ("lib/base/a.h", HEADER + '#include "time.h"\n', 2, "include-path"),
            ("LICENSE", "x\n", 0, "top-level"),
            ("src/a.md", "x\n", 0, "top-level"),
            ("lib/tcp/a.h", HEADER + "std::function<void()> f;\n", 2, "poll-core"),
            ("lib/tcp/a.h", HEADER + "std::shared_ptr<int> f;\n", 2, "poll-core"),
            ("lib/http/a.h", HEADER + "auto f = new int;\n", 2, "poll-core"),
            ("lib/wire/a.h", HEADER + "auto f = malloc(3);\n", 2, "poll-core"),
            ("lib/tls/a.h", HEADER + "void f() { throw 1; }\n", 2, "poll-core"),
            ("lib/route/matcher_a.h", HEADER + "int n = snprintf(b, 3, x);\n", 2, "poll-core"),
            ("dataplane/a.h", HEADER + "std::mutex m;\n", 2, "poll-core"),
            ("dataplane/a.h", HEADER + "// x\n/* y\n */ std::cout << 1'000;\n", 4, "poll-core"),
            ("lib/base/a.h", "int x;\n", 1, "pragma-once"),
            ("lib/base/a.h", HEADER + "\tint x;\n", 2, "tab"),
            ("lib/base/a.h", HEADER + "int x; \n", 2, "space"),
            ("lib/base/a.h", HEADER + "int x;", 1, "newline"),
            ("lib/base/a.h", HEADER + "int x;\n\n", 3, "newline"),
            ("lib/base/a.h", HEADER + "x" * 131 + "\n", 2, "line-length"),
            ("lib/base/a.h", HEADER + "x;\n" * 601, 0, "length"),
            ("lib/base/a.h", HEADER + "x;\n" * 900, 0, "length"),
            ("lib/base/a.h", HEADER + "// TO" "DO later\n", 2, "unfinished"),
            ("lib/base/note.md", "FIX" "ME\n", 1, "unfinished"),
            ("lib/base/a.h", HEADER + "// X" "XX\n", 2, "unfinished"),
            ("lib/base/note.md", "see /wo" "rk/main/x\n", 1, "machine-path"),
            ("tests/fuzz/arp.cc", "int LLVMFuzzerTestOneInput();\n", None, "corpus"),
            ("tests/fuzz/corpus/tls/a", "x", 0, "corpus"),
            ("lib/stats/drop_reasons.def", 'DROP_REASON(kUsed, "", x, "")\nDROP_REASON(kUnused, "", x, "")\n', 2, "drop-reason"),
            ("lib/tcp/a.cc", "int x;\n", 0, "unbuilt"),
            ("lib/wire/a.md", "x\r\n", 1, "newline"),
        ]
        folder_readmes = {"lib/wire/README.md": "x\n", "lib/tls/README.md": "x\n", "src/README.md": "x\n"}
        for path, text, line, rule in rows:
            with self.subTest(rule=rule, path=path, text=text[-60:]):
                extra = {r: t for r, t in folder_readmes.items() if r.split("/README")[0] == os.path.dirname(path)}
                found = findings({path: text, **extra})
                self.assertEqual({f[2] for f in found}, {rule}, found)
                if line is not None:
                    reported = {"top-level": path.split("/")[0], "corpus": os.path.dirname(path)}.get(rule, path)
                    self.assertIn((reported, line, rule), found)

    def test_missing_readme(self):
        self.assertEqual(findings({"lib/tcp/README.md": None}), [("lib/tcp", 0, "readme")])
        self.assertEqual(findings({"README.md": None}), [(".", 0, "readme")])
        self.assertEqual(findings({"lib/tcp/congestion/cubic.h": HEADER}), [])

    def test_fuzz_target_needs_input_and_a_line(self):
        self.assertEqual(findings({"tests/fuzz/corpus/tcp/syn": ""}), [("tests/fuzz/tcp.cc", 0, "corpus")])
        self.assertEqual(findings({"tests/fuzz/meson.build": "\n"})[0][2], "corpus")

    def test_long_line_in_prose_and_corpus_is_fine(self):
        self.assertEqual(findings({"lib/tcp/note.md": "x" * 500 + "\n", "tests/fuzz/corpus/tcp/b": "TO" "DO" + "x" * 500,
                                   "tests/unit/control/bad/tab.yaml": "a:\t1 "}), [])
        self.assertEqual(len(findings({"lib/tcp/example.yaml": "a:\t1\n"})), 1)

    def test_allowed_by_name_with_a_reason(self):
        self.assertEqual(findings({"dataplane/head_buffer.h": HEADER + "auto b = new int[3];\n"}), [])
        self.assertEqual(findings({"dataplane/head_buffer.h": HEADER + "std::mutex b;\n"}),
                         [("dataplane/head_buffer.h", 2, "poll-core")])
        for pattern, what, reason in tidy.POLL_CORE_ALLOWED:
            self.assertGreater(len(reason), 10, pattern)

    def test_own_rules_are_all_explained(self):
        import re
        with open(tidy.__file__) as f:
            used = set(re.findall(r'self\.report\([^)]*?"([a-z-]+)", ', f.read()))
        self.assertTrue(used)
        self.assertEqual(used - set(tidy.RULES), set())

    def test_warnings_do_not_fail(self):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**GOOD, "lib/tcp/a.cc": "int x;\n"}.items():
                full = os.path.join(root, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w", newline="") as f:
                    f.write(text)
            found = tidy.Tidy(root).run()
            self.assertEqual([(f[2], f[4]) for f in found], [("unbuilt", True)])


if __name__ == "__main__":
    unittest.main()
