#!/usr/bin/python3
"""The tidy check: what a compiler does not see and a reviewer should not have to.

usage: tidy.py [--root DIR] [--strict] [--list]

Prints one line a finding, path:line: rule: what is wrong, and ends with 1 when there is an error. Warnings (marked so) do not
fail the check unless --strict is given. --list explains the rules. Needs nothing but the Python 3 that the system has.
"""

import argparse
import os
import re
import subprocess
import sys

# --- the layers -----------------------------------------------------------------------------------------------------------------
# Who may include whom. A folder may always include itself. A name means the whole folder; a file name, or a part of one with *,
# those files.
PACKET = ["lib/io/packet*.h"]
LAYERS = {
    "lib/base": [],
    "lib/wire": ["lib/base"],
    "lib/stats": ["lib/base"],
    "lib/shm": ["lib/base"],
    "lib/tcp": ["lib/base", "lib/wire", "lib/stats"] + PACKET,
    "lib/tls": ["lib/base", "lib/stats"] + PACKET,
    "lib/http": ["lib/base", "lib/stats"] + PACKET,
    "lib/compress": ["lib/base"] + PACKET,
    "lib/table": ["lib/base"],
    "lib/format": ["lib/base", "lib/stats", "lib/table"],
    "lib/route": ["lib/base", "lib/table", "lib/http/message.h"],
    "lib/io": ["lib/base", "lib/stats", "lib/shm"],
    "lib/bootstrap": ["lib/base"],
    "lib/api": [],
    "dataplane": ["lib/base", "lib/wire", "lib/stats", "lib/shm", "lib/tcp", "lib/tls", "lib/http", "lib/compress", "lib/table",
                  "lib/format", "lib/route", "lib/io", "lib/bootstrap"],
    "control": ["lib/base", "lib/stats", "lib/shm", "lib/table", "lib/format", "lib/route", "lib/api", "lib/bootstrap", "lib/http/message.h"],
    "perf": ["lib", "dataplane", "tests", "control"],
    "tests": ["lib", "dataplane", "control", "perf"],
}
# Exceptions, each with its reason: file -> what it may include besides.
LAYER_EXCEPTIONS = {
    # A certificate that the data plane would refuse must be refused by control already, with the same words.
    "control/manifests/gateways.cc": ["lib/tls/certificate.h"],
    "control/validate_tls.cc": ["lib/tls/certificate.h"],
    # /certs describes certificates as validation does.
    "control/admin/pages.cc": ["lib/tls/certificate.h"],
}

# Headers of libraries: pattern -> where they may be included. Tests may include what they test.
LIBRARY_HEADERS = [
    # lib/io/packet.h is a thin face of the mbuf and includes its header for all who may include packet.h.
    (r"rte_mbuf(_core)?\.h", "the mbuf", ["lib/io", "lib/tcp", "lib/tls", "lib/http", "dataplane", "tests", "perf"]),
    (r"rte_\w+\.h", "DPDK", ["lib/io", "tests", "perf"]),
    (r"hs(_\w+)?\.h|hs/.*", "Hyperscan", ["lib/route/pattern_db.*", "tests"]),
    (r"openssl/.*", "OpenSSL", ["lib/tls", "tests"]),
    (r"zlib\.h|brotli/.*|zstd(_errors)?\.h", "a compression library", ["lib/compress", "tests"]),
    (r"nghttp2/.*", "nghttp2", ["lib/http", "tests"]),
    (r"google/protobuf/.*|.*\.pb\.h", "protobuf", ["lib/api", "control", "tests"]),
    (r"grpcpp/.*|grpc/.*|.*\.grpc\.pb\.h", "gRPC", ["lib/api", "control", "tests"]),
    (r"yaml-cpp/.*", "yaml-cpp", ["lib/bootstrap", "control", "tests"]),
    (r"g(test|mock)/.*", "GoogleTest", ["tests"]),
    (r"benchmark/.*", "Google Benchmark", ["perf"]),
]

# --- the poll core --------------------------------------------------------------------------------------------------------------
# Folders (or files) whose code runs on poll cores, and what has no place there.
POLL_CORE = ["lib/tcp", "lib/http", "lib/wire", "lib/tls", "lib/compress", "lib/route/matcher*", "dataplane"]
POLL_CORE_FORBIDDEN = [
    (r"\bstd::function\b", "std::function"),
    (r"\bshared_ptr\b|\bmake_shared\b", "shared_ptr"),
    (r"\bnew\b(?!\s*\()", "new"),
    (r"\b(?:m|c|re)alloc\s*\(", "malloc"),
    (r"\bthrow\b", "throw"),
    (r"\b\w*printf\s*\(", "printf"),
    (r"\bstd::c(?:out|err|log)\b", "std::cout"),
    (r"\bmutex\b|\block_guard\b|\bunique_lock\b", "mutex"),
]
# What in these folders does not run on a poll core, or only before the loop begins: (file or prefix*, what, why).
POLL_CORE_ALLOWED = [
    ("dataplane/main*", "all", "start-up, before any worker runs"),
    ("dataplane/options*", "all", "the command line, read once at start"),
    ("dataplane/config*", "all", "the dataplane section, read once at start"),
    ("dataplane/table_loader*", "all", "the loader thread, which is no poll core"),
    ("dataplane/host_bridge*", "all", "the thread of the exception interface, which is no poll core"),
    ("dataplane/runtime_snapshot*", "shared_ptr", "owners of arenas, held and dropped by the loader thread"),
    ("dataplane/tls_contexts*", "all", "built, shared between snapshots and freed by the loader thread"),
    ("dataplane/hash_budget.h", "all", "what the loader thread counts of its nodes' memory"),
    ("dataplane/runtime_nodes*", "all", "built, shared between snapshots and freed by the loader thread"),
    ("dataplane/supervisor*", "all", "the supervisor thread, which is no poll core"),
    ("dataplane/control_link*", "all", "the socket to control, served by the loader thread"),
    ("dataplane/head_buffer.h", "new", "all buffers are made at start"),
    ("lib/http/h2_connection.cc", "new", "what the connections of a worker share, made at start"),
    ("lib/route/matcher.cc", "new", "scratch memory of a worker, made at start"),
    ("lib/tls/session.cc", "new", "all sessions are made at start"),
    ("lib/tls/context*", "all", "contexts are made by the loader thread and handed over ready"),
    ("lib/tls/certificate*", "all", "certificates are read by the loader thread and by control"),
    ("lib/tls/memory*", "all", "gives OpenSSL its memory: the one place that may"),
]

# --- the tree -------------------------------------------------------------------------------------------------------------------
TOP_LEVEL = {"meson.build", "meson_options.txt", "dataplane", "control", "lib", "scripts", "tests", "perf", "README.md"}
README_DEPTH = 2                   # lib/tcp has one, lib/tcp/congestion may
README_EXEMPT = ["tests/unit/*"]   # mirrors lib/, explained by tests/README.md
MAX_LINES, WARN_LINES = 900, 600
MAX_TEST_LINES = 1200               # tests are tables
MAX_LINE_LENGTH = 130               # of C++ in the product: what scripts/dev fmt makes
MAX_OTHER_LINE_LENGTH = 180         # tables in tests, build files, scripts, .proto
CODE = {".h", ".cc", ".py", ".sh", ".build", ".proto", ".def", ".js", ".css", ".html"}
TEXT = CODE | {".md", ".txt", ".yaml", ".yml", ".json", ".inc", ""}
# Test data is as wrong as it has to be.
NOT_OURS_TO_FORMAT = ["tests/fuzz/corpus/*", "tests/golden/*.txt", "tests/*.yaml", "tests/*.json", "tests/*.pem"]
GENERATED = ["*.inc"]              # lists made by a script from a published source: no limit on length

UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:wo" r"rk/(?:main|shared)|tmp/to" r"ols)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')

RULES = {
    "layer": "an include breaks the table of layers (LAYERS above, the same as in the design)",
    "library": "a library's header outside the folder that wraps it",
    "include-path": 'an #include "..." that does not start at the root of the tree',
    "top-level": "an entry at the top that has no place there",
    "readme": "a folder without README.md",
    "length": "a file of more than 900 lines (more than 600: warning)",
    "line-length": "a line of more than 130 characters",
    "tab": "a tab character",
    "newline": "a text file that does not end with exactly one newline, or has carriage returns",
    "space": "blanks at the end of a line",
    "poll-core": "heap, lock, exception, type-erased call or formatted text in code that runs on poll cores",
    "pragma-once": "a header without #pragma once",
    "corpus": "a fuzz target without a corpus, without a line in tests/fuzz/meson.build, or a corpus without a target",
    "drop-reason": "a drop reason that nothing uses (warning)",
    "unbuilt": "a .cc file that no meson.build names (warning)",
    "unfinished": "a note that something is still to be done: finish it, or write it down as an issue",
    "machine-path": "a path of one developer's machine",
}
WARNING_RULES = {"drop-reason", "unbuilt"}


def matches(path, patterns):
    """True when `path` is one of `patterns`, lies below one, or begins like one that ends with *."""
    for p in patterns:
        if p.startswith("*"):
            if path.endswith(p[1:]):
                return True
        elif p.endswith("*"):
            if path.startswith(p[:-1]):
                return True
        elif "*" in p:
            head, tail = p.split("*", 1)
            if path.startswith(head) and path.endswith(tail):
                return True
        elif path == p or path.startswith(p + "/"):
            return True
    return False


def strip_comments_and_strings(text):
    """C++ source with comments and literals blanked out, line structure kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), re.sub(r"(?<=\d)'(?=\d)", "", text))


def list_files(root):
    """Tracked and new files, but not ignored ones; in a folder without git, all files."""
    if os.path.exists(os.path.join(root, ".git")):  # a folder, or the file of a work tree
        command = ["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"]
        files = set(subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")) - {""}
        return sorted(f for f in files if os.path.isfile(os.path.join(root, f)))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [d for d in folders if d != "__pycache__"]
        found += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return sorted(found)


class Tidy:
    def __init__(self, root):
        self.root = root
        self.findings = []  # (path, line, rule, text, is_warning)
        self.files = list_files(root)
        self.texts = {}

    def report(self, path, line, rule, text, warning=False):
        self.findings.append((path, line, rule, text, warning or rule in WARNING_RULES))

    def text(self, path):
        if path not in self.texts:
            with open(os.path.join(self.root, path), encoding="utf-8", errors="surrogateescape", newline="") as f:
                self.texts[path] = f.read()
        return self.texts[path]

    def run(self):
        self.check_top_level()
        self.check_readmes()
        self.check_corpora()
        self.check_drop_reasons()
        self.check_unbuilt()
        for path in self.files:
            extension = os.path.splitext(path)[1]
            if extension not in TEXT or matches(path, NOT_OURS_TO_FORMAT) or self.is_binary(path):
                continue
            if extension == "" and self.text(path).startswith("#!"):
                extension = ".sh"
            self.check_text(path, extension)
            if extension in (".h", ".cc"):
                self.check_includes(path)
                self.check_poll_core(path)
                if extension == ".h" and "#pragma once" not in self.text(path):
                    self.report(path, 1, "pragma-once", "no #pragma once")
        return sorted(self.findings)

    def is_binary(self, path):
        with open(os.path.join(self.root, path), "rb") as f:
            return b"\0" in f.read(4096)

    # --- the tree
    def check_top_level(self):
        for entry in sorted({f.split("/")[0] for f in self.files}):
            if entry not in TOP_LEVEL and not entry.startswith("."):
                self.report(entry, 0, "top-level", "only %s and dotfiles live here" % ", ".join(sorted(TOP_LEVEL)))

    def check_readmes(self):
        folders = set()
        for f in self.files:
            parts = f.split("/")[:-1]
            for depth in range(1, min(len(parts), README_DEPTH) + 1):
                folders.add("/".join(parts[:depth]))
        for folder in sorted(folders):
            if folder.startswith(".") or matches(folder, README_EXEMPT):
                continue
            if folder + "/README.md" not in self.files:
                self.report(folder, 0, "readme", "no README.md")
        if self.files and "README.md" not in self.files:
            self.report(".", 0, "readme", "no README.md")

    def check_corpora(self):
        meson = self.text("tests/fuzz/meson.build") if "tests/fuzz/meson.build" in self.files else ""
        targets = set()
        for f in self.files:
            m = re.fullmatch(r"tests/fuzz/(\w+)\.cc", f)
            if not m or m.group(1) == "replay_main":
                continue
            name = m.group(1)
            targets.add(name)
            corpus = [c for c in self.files if c.startswith("tests/fuzz/corpus/%s/" % name)]
            if not any(os.path.getsize(os.path.join(self.root, c)) > 0 for c in corpus):
                self.report(f, 0, "corpus", "no input in tests/fuzz/corpus/%s/" % name)
            if not re.search(r"\[\s*'%s'" % name, meson):
                self.report(f, 0, "corpus", "not in the list of tests/fuzz/meson.build")
            if "LLVMFuzzerTestOneInput" not in self.text(f):
                self.report(f, 0, "corpus", "defines no LLVMFuzzerTestOneInput")
        for name in sorted({f.split("/")[3] for f in self.files if re.match(r"tests/fuzz/corpus/[^/]+/", f)}):
            if name not in targets:
                self.report("tests/fuzz/corpus/" + name, 0, "corpus", "no tests/fuzz/%s.cc reads this" % name)

    def check_drop_reasons(self):
        listing = "lib/stats/drop_reasons.def"
        if listing not in self.files:
            return
        used = set()
        for f in self.files:
            if os.path.splitext(f)[1] in (".h", ".cc") and matches(f, ["lib", "dataplane"]) and not f.startswith("lib/stats/"):
                used.update(re.findall(r"\bDropReason::(k\w+)", self.text(f)))
                used.update(re.findall(r"\bReason::(k\w+)", self.text(f)))
        for number, line in enumerate(self.text(listing).split("\n"), 1):
            m = re.match(r"DROP_REASON\((k\w+)", line)
            if m and m.group(1) not in used:
                self.report(listing, number, "drop-reason", "%s is used nowhere" % m.group(1))

    def check_unbuilt(self):
        named = {}
        for f in self.files:
            if os.path.basename(f) == "meson.build":
                named[os.path.dirname(f)] = self.text(f)
        for f in self.files:
            if not f.endswith(".cc") or f.startswith("tests/fuzz/"):
                continue
            name = os.path.basename(f)
            folder = os.path.dirname(f)
            stem = os.path.splitext(name)[0]
            while True:
                # Named as 'file.cc', 'sub/file.cc', or by its stem in a list.
                if re.search(r"['/]%s['.]" % re.escape(stem), named.get(folder, "")):
                    break
                if not folder:
                    self.report(f, 0, "unbuilt", "no meson.build names it")
                    break
                folder = os.path.dirname(folder)

    # --- one file
    def check_text(self, path, extension):
        text = self.text(path)
        if not text:
            return
        if "\r" in text:
            self.report(path, 1, "newline", "carriage return")
        if not text.endswith("\n") or text.endswith("\n\n"):
            self.report(path, text.count("\n"), "newline", "must end with exactly one newline")
        lines = text.split("\n")
        if extension in CODE and not matches(path, GENERATED):
            most = MAX_TEST_LINES if path.startswith("tests/") else MAX_LINES
            if len(lines) - 1 > most:
                self.report(path, 0, "length", "%d lines; more than %d" % (len(lines) - 1, most))
            elif len(lines) - 1 > WARN_LINES:
                self.report(path, 0, "length", "%d lines; more than %d are too many to take in" % (len(lines) - 1, WARN_LINES),
                            warning=True)
        for number, line in enumerate(lines, 1):
            if "\t" in line and extension != "":
                self.report(path, number, "tab", "tab")
            if line != line.rstrip(" \t") and extension != ".md":
                self.report(path, number, "space", "blanks at the end")
            product = extension in (".h", ".cc") and not path.startswith(("tests/", "perf/"))
            limit = MAX_LINE_LENGTH if product else MAX_OTHER_LINE_LENGTH
            if path.startswith("tests/diff/requests/"):  # one request a line, as data
                limit = 1000
            if extension in CODE and not matches(path, GENERATED) and len(line) > limit:
                self.report(path, number, "line-length", "%d characters" % len(line))
            if UNFINISHED.search(line):
                self.report(path, number, "unfinished", line.strip()[:80])
            if MACHINE_PATH.search(line):
                self.report(path, number, "machine-path", line.strip()[:80])

    def folder_of(self, path):
        """The entry of LAYERS that `path` belongs to, or None."""
        parts = path.split("/")
        two = "/".join(parts[:2])
        return two if two in LAYERS else parts[0] if parts[0] in LAYERS else None

    def check_includes(self, path):
        own = self.folder_of(path)
        for number, line in enumerate(self.text(path).split("\n"), 1):
            m = INCLUDE.match(line)
            if not m:
                continue
            quoted, header = m.group(1) == '"', m.group(2)
            library = self.check_library(path, number, header)
            if not quoted or library:
                continue
            target = self.folder_of(header)
            if target is None:
                if not os.path.exists(os.path.join(self.root, header)):
                    self.report(path, number, "include-path", '"%s" is not a path from the root' % header)
                continue
            if own is None or target == own:
                continue
            if not matches(header, LAYERS[own]) and not matches(header, LAYER_EXCEPTIONS.get(path, [])):
                self.report(path, number, "layer", "%s may not include %s" % (own, header))

    def check_library(self, path, number, header):
        for pattern, name, places in LIBRARY_HEADERS:
            if not re.fullmatch(pattern, header):
                continue
            if not matches(path, places):
                self.report(path, number, "library", "<%s>: %s only in %s" % (header, name, ", ".join(places)))
            return True
        return False

    def check_poll_core(self, path):
        if not matches(path, POLL_CORE):
            return
        allowed = [what for p, what, _ in POLL_CORE_ALLOWED if matches(path, [p])]
        if "all" in allowed:
            return
        for number, line in enumerate(strip_comments_and_strings(self.text(path)).split("\n"), 1):
            if INCLUDE.match(line):
                continue
            for pattern, name in POLL_CORE_FORBIDDEN:
                if name not in allowed and re.search(pattern, line):
                    self.report(path, number, "poll-core", "%s on a poll core" % name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--root", default=os.path.join(here, "..", ".."), help="the tree to check")
    parser.add_argument("--strict", action="store_true", help="warnings fail too")
    parser.add_argument("--quiet", action="store_true", help="show errors only")
    parser.add_argument("--list", action="store_true", help="explain the rules and end")
    args = parser.parse_args()
    if args.list:
        for rule, text in RULES.items():
            print("%-13s %s" % (rule, text))
        return 0
    findings = Tidy(os.path.normpath(args.root)).run()
    errors = warnings = 0
    for path, line, rule, text, warning in findings:
        errors += not warning
        warnings += warning
        if warning and args.quiet and not args.strict:
            continue
        where = "%s:%d" % (path, line) if line else path
        print("%s: %s%s: %s" % (where, "warning: " if warning else "", rule, text))
    print("tidy: %d errors, %d warnings" % (errors, warnings))
    return 1 if errors or (args.strict and warnings) else 0


if __name__ == "__main__":
    sys.exit(main())
