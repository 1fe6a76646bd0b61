"""Manual pages from what the programs say of themselves: every option and command comes from --help, every key of the `dataplane:` section from
lib/bootstrap/README.md, so that a page cannot say what is no longer so."""
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

PROGRAMS = {
    "millrace-dataplane": (8, "moves packets, terminates TCP and TLS, routes HTTP", """\
The data plane of a Millrace gateway: one poll-mode DPDK worker on each configured core. It takes its ports, cores and addresses from the `dataplane:`
section of the configuration (millrace.yaml(5)) and its tables from millrace-control(8), over dataplane.sock in the run directory. Without
control it serves on with the tables it has. Workers poll, so their cores are always at 100 %.

Started by systemd it says when it is ready, and that it is alive while the loop of every worker turns.""",
                           [("0", "ended by SIGTERM or SIGINT"), ("2", "usage"), ("3", "the configuration is wrong; every error was printed"),
                            ("4", "the machine is not as the configuration wants it: hugepages, devices, cores"), ("5", "packets were not given back at the end")],
                           [("SIGTERM, SIGINT", "ends; connections are lost (millctl drain goes before)")],
                           ["/run/millrace/dataplane.sock", "/etc/millrace/gateway.yaml"], "millrace-control(8), millctl(1), millrace.yaml(5)"),
    "millrace-control": (8, "reads configuration, publishes tables, gathers statistics", """\
Control of a Millrace gateway: reads an Envoy bootstrap (millrace.yaml(5)) and what management servers send, validates it, compiles it into tables for
millrace-dataplane(8), writes access logs, serves millctl(1) and Envoy's admin interface on admin.sock in the run directory. It may end and be started again at any
time: the data plane serves on. Edits made with millctl are kept in the store.""",
                         [("0", "ended by SIGTERM or SIGINT, or the configuration is good (--validate)"), ("3", "the configuration is wrong; every error was printed"),
                          ("4", "the machine is: run directory, socket, store, log file")],
                         [("SIGUSR1", "opens access logs and its own log file anew, for logrotate(8)"), ("SIGTERM, SIGINT", "ends")],
                         ["/run/millrace/control.sock", "/run/millrace/admin.sock", "/etc/millrace/gateway.yaml", "/var/lib/millrace/control.db"],
                         "millrace-dataplane(8), millctl(1), millrace.yaml(5)"),
    "millctl": (1, "shows and changes a running Millrace gateway", """\
Talks to millrace-control(8): shows what is in force, changes it while traffic flows, and explains where requests go. Changes are all or nothing, and
reported when every worker answers by them.""",
                [("0", "done"), ("1", "refused, or not found"), ("2", "usage"), ("3", "control is not there"), ("4", "not in force in time")], [],
                ["/run/millrace/control.sock"], "millrace-control(8), millrace-dataplane(8), millrace.yaml(5)"),
}


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def help_of(binary, *command):
    p = subprocess.run([binary, *command, "--help"], capture_output=True, text=True, timeout=30, env=dict(os.environ, COLUMNS="120", LC_ALL="C.UTF-8"))
    if p.returncode != 0:
        raise SystemExit(f"{binary} {' '.join(command)} --help: exit {p.returncode}\n{p.stderr}")
    return p.stdout


def split_option(line):
    """The name of an option or command, and what it is for. A name that fills its column has one blank behind it."""
    name, blanks, description = line.partition("  ")
    if not blanks and (m := re.fullmatch(r"(-\S+(?: [A-Z]+(?:[:=]\S+)?)?(?: \.\.\.)?(?: REQUIRED)?) (.*)", line)):
        name, description = m[1], m[2]
    return name, description.strip()


def sections(text):
    """{"": what stands before, "Options": [(name, description)], ...} of a help text."""
    out, title, entries = {}, "", []
    for line in text.splitlines():
        if m := re.fullmatch(r"([A-Z][A-Za-z ]+):", line):
            out[title] = entries
            title, entries = m[1], []
        elif title and line.startswith("  ") and not line.startswith("      "):
            entries.append(list(split_option(line.strip())))
        elif title and line.startswith("      ") and entries:
            entries[-1][1] = (entries[-1][1] + " " + line.strip()).strip()
        elif not title:
            entries.append(line)
    out[title] = entries
    return out


def commands(text):
    return [name for name, _ in sections(text).get("Subcommands", [])]


def listing(entries):
    return "".join(f".TP\n.B {roff(name)}\n{roff(description) or '.br'}\n" for name, description in entries)


def usage(text):
    """What stands behind the program's name on the line of its usage."""
    m = re.search(r"^Usage: \S+ ?(.*)$", text, re.M)
    return m[1] if m else ""


def command_pages(binary, path, out):
    """One command of millctl and those below it."""
    text = help_of(binary, *path)
    parts = sections(text)
    about = " ".join(x.strip() for x in parts[""] if x.strip() and not x.startswith("Usage:"))
    line = re.search(r"^Usage: (.*)$", text, re.M)
    out.append(f".SS {roff(' '.join(path))}\n{roff(about)}\n")
    if line:
        out.append(f".PP\n.B {roff(line[1])}\n")
    for title in [t for t in parts if t not in ("", "Subcommands")]:
        entries = [e for e in parts[title] if not e[0].startswith("-h,--help")]
        out.append(listing(entries))
    for sub in commands(text):
        command_pages(binary, [*path, sub], out)


def program_page(name, binary, version):
    section, summary, about, exits, signals, files, also = PROGRAMS[name]
    text = help_of(binary)
    parts = sections(text)
    out = [f'.TH {name.upper().replace("-", chr(92) + "-")} {section} "" "Millrace {version}" "Millrace"\n', f".SH NAME\n{roff(name)} \\- {roff(summary)}\n",
           f".SH SYNOPSIS\n.B {roff(name)}\n{roff(usage(text))}\n", ".SH DESCRIPTION\n" + roff(about).replace("\n\n", "\n.PP\n") + "\n",
           ".SH OPTIONS\n" + listing(parts["Options"])]
    if "Subcommands" in parts:
        out.append(".SH COMMANDS\n")
        for command in commands(text):
            command_pages(binary, [command], out)
    out.append(".SH EXIT STATUS\n" + listing(exits))
    if signals:
        out.append(".SH SIGNALS\n" + listing(signals))
    out.append(".SH FILES\n" + "".join(f".TP\n.I {roff(f)}\n" for f in files))
    out.append(f".SH SEE ALSO\n{roff(also)}\n")
    return section, "".join(out)


def plain(markdown):
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return text.replace("\\|", "|").replace("`", "").replace("**", "").strip()


def keys(readme):
    """(key, default, meaning) of the table under "## Keys"."""
    table = readme.split("## Keys", 1)[1]
    for line in table.splitlines():
        if line.startswith("| `"):
            key, default, meaning = re.split(r"(?<!\\)\|", line.strip().strip("|"))[:3] if line.count("|") >= 4 else (line, "", "")
            yield plain(key), plain(default), plain(meaning)


def config_page(version):
    with open(os.path.join(ROOT, "lib", "bootstrap", "README.md")) as f:
        rows = list(keys(f.read()))
    with open(os.path.join(ROOT, "scripts", "quickstart.yaml")) as f:
        example = f.read()
    out = [f'.TH MILLRACE.YAML 5 "" "Millrace {version}" "Millrace"\n', ".SH NAME\nmillrace.yaml \\- configuration of a Millrace gateway\n", ".SH DESCRIPTION\n",
           roff("One file for both programs: an Envoy bootstrap (v3) in YAML or JSON, with one key more, `dataplane:`, which says ports, cores and addresses. The packaged "
                "services read /etc/millrace/gateway.yaml.\n"),
           ".PP\n", roff("millrace-control --validate --config FILE says every error of a file with line, column and field path. What of Envoy's configuration is not "
                         "supported is refused by its full path, never ignored.\n"),
           ".SH THE DATAPLANE SECTION\n"]
    for key, default, meaning in rows:
        about = meaning + (f" (default: {default})" if default not in ("", "needed", "none") else " (needed)" if default == "needed" else "")
        out.append(f".TP\n.B {roff(key)}\n{roff(about.strip()) or '.br'}\n")
    out += [".SH EXAMPLE\n.nf\n", roff(example), ".fi\n", ".SH SEE ALSO\n", roff("millrace-dataplane(8), millrace-control(8), millctl(1)\n")]
    return 5, "".join(out)


def write_pages(binaries, version, folder):
    """binaries: {name: path}. Pages as folder/man8/millrace-control.8, ..."""
    pages = {name: program_page(name, path, version) for name, path in binaries.items()}
    pages["millrace.yaml"] = config_page(version)
    for name, (section, text) in pages.items():
        os.makedirs(os.path.join(folder, f"man{section}"), exist_ok=True)
        with open(os.path.join(folder, f"man{section}", f"{name}.{section}"), "w") as f:
            f.write('.\\" Made by scripts/package.\n' + text)
