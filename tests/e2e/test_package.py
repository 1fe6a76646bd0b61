"""The Debian package and its units: built, unpacked into a root of its own, looked at and run; both programs under a service manager (this test) that hears
that they are ready, alive and stopping; a data plane with a worker that stands still; the rights that the unit leaves."""
import gzip
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "support"))
import lab as L  # noqa: E402

PACKAGING = os.path.join(L.ROOT, "scripts", "packaging")
PAGES = {"millctl": 1, "millrace-control": 8, "millrace-dataplane": 8, "millrace.yaml": 5}
UNITS = ("millrace-dataplane.service", "millrace-control.service")


def run(*argv, **kwargs):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=120, **kwargs)
    assert p.returncode == 0, (argv, p.stdout[-2000:], p.stderr[-2000:])
    return p.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    path = run(os.path.join(L.ROOT, "scripts", "package"), "--from", L.BUILD, "--out", str(folder)).strip()
    run("dpkg-deb", "-x", path, str(folder / "root"))
    return path, str(folder / "root")


def page(root, name):
    with gzip.open(f"{root}/usr/share/man/man{PAGES[name]}/{name}.{PAGES[name]}.gz", "rt") as f:
        return f.read()


def test_its_contents(package):
    path, root = package
    for name in "millctl", "millrace-control", "millrace-dataplane":
        assert run(f"{root}/usr/bin/{name}", "--version").split()[-1] == run("dpkg-deb", "-f", path, "Version").strip()
    owners = {line.split()[1] for line in run("dpkg-deb", "-c", path).splitlines()}
    assert owners == {"root/root"}
    depends = run("dpkg-deb", "-f", path, "Depends")
    for library in "librte-eal23", "libhyperscan5", "libssl3", "libc6", "libgrpc++", "librte-mempool-ring23", "systemd":
        assert library in depends, depends
    for script in "postinst", "prerm", "postrm":
        run("sh", "-n", f"{PACKAGING}/{script}")
    completion = f"{root}/usr/share/bash-completion/completions/millctl"
    run("bash", "-n", completion)
    assert "_millctl" in run("bash", "-c", f"source {completion} && complete -p millctl")
    example = f"{root}/usr/share/doc/millrace/examples/gateway.yaml"
    assert "good" in run(f"{root}/usr/bin/millrace-dataplane", "--config", example, "--check")


def test_dpkg_takes_it(package, tmp_path):
    path, _ = package
    for folder in "updates", "info", "triggers":
        os.makedirs(tmp_path / "var/lib/dpkg" / folder)
    for name in "status", "available":
        (tmp_path / "var/lib/dpkg" / name).write_text("")
    run("dpkg", "--root", str(tmp_path), "--force-depends", "--force-not-root", "--unpack", path)
    assert run("dpkg-query", "--admindir", str(tmp_path / "var/lib/dpkg"), "-W", "-f", "${Status} ${Conffiles}", "millrace").split()[:3] == ["install", "ok", "unpacked"]
    # Its script speaks to the system's manager; what is left of configuring are the conffiles.
    os.remove(tmp_path / "var/lib/dpkg/info/millrace.postinst")
    run("dpkg", "--root", str(tmp_path), "--force-depends", "--force-not-root", "--configure", "millrace")
    assert run("dpkg", "--root", str(tmp_path), "--verify", "millrace") == ""
    assert (tmp_path / "usr/bin/millctl").exists() and os.path.isdir(tmp_path / "etc/millrace")


def commands(program, *path):
    text = run(program, *path, "--help")
    below = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.M)
    yield path, text
    for line in below[1].splitlines() if below else []:
        if m := re.match(r"  (\w[\w-]*)", line):
            yield from commands(program, *path, m[1])


def test_manual_pages_are_what_the_programs_say(package):
    _, root = package
    for name in "millctl", "millrace-control", "millrace-dataplane":
        written = page(root, name).replace("\\-", "-").replace("\\e", "\\")
        found = 0
        for path, text in commands(f"{root}/usr/bin/{name}"):
            assert not path or f".SS {' '.join(path)}\n" in written, path
            for option in re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.M):
                found += 1
                assert option in written or option == "--help", (name, path, option)
        assert found > 4, (name, found)
    keys = open(os.path.join(L.ROOT, "lib", "bootstrap", "README.md")).read().split("## Keys")[1]
    written = page(root, "millrace.yaml").replace("\\-", "-")
    for key in re.findall(r"^\| `([^`]+)`", keys, re.M):
        assert key in written, key
    if shutil.which("man"):
        for name, section in PAGES.items():
            p = subprocess.run(["man", "--warnings=all", "-l", f"{root}/usr/share/man/man{section}/{name}.{section}.gz"], capture_output=True, text=True, timeout=60,
                               env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="160", MANPAGER="cat", MAN_KEEP_STDERR="1"))
            assert p.returncode == 0 and not p.stderr and "SYNOPSIS" in p.stdout or name == "millrace.yaml" and not p.stderr, (name, p.stderr[:2000])


def test_lintian_has_no_errors(package):
    if not shutil.which("lintian"):
        pytest.skip("no lintian")
    # A package made of the tree has nobody's mailbox.
    p = subprocess.run(["lintian", "--fail-on", "error", "--suppress-tags", "bogus-mail-host,bogus-mail-host-in-debian-changelog", package[0]],
                       capture_output=True, text=True, timeout=300)
    assert p.returncode == 0, p.stdout + p.stderr


def test_units_are_sound_and_hardened(package):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    _, root = package
    # The programs are looked for below the root.
    for shared in "/lib/systemd/system", "/usr/lib/systemd/system":
        if os.path.isdir(shared):
            for target in os.listdir(shared):
                there = f"{root}/lib/systemd/system/{target}"
                if target.endswith((".target", ".slice", ".socket", ".mount")) and not os.path.exists(there) and os.path.isfile(f"{shared}/{target}"):
                    shutil.copy(f"{shared}/{target}", there)
    for unit in *UNITS, "millrace.target":
        p = subprocess.run(["systemd-analyze", "verify", "--root", root, "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True, timeout=60)
        ours = [line for line in p.stderr.splitlines() if "millrace" in line]
        assert p.returncode == 0 and not ours, (unit, p.stderr)
    for unit, most in zip(UNITS, (4.5, 2.0)):
        # The score: 10 is bare, 0 is all of it. Exposure above `most` is an error.
        p = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={int(most * 10)}", f"{root}/lib/systemd/system/{unit}"],
                           capture_output=True, text=True, timeout=60)
        score = re.search(r"Overall exposure level.*?: ([0-9.]+)", p.stdout)
        assert score and float(score[1]) <= most and p.returncode == 0, p.stdout[-3000:] + p.stderr


NOBODY = 65534


def unit_setting(unit, name):
    return re.findall(rf"^{name}=(.*)$", open(os.path.join(PACKAGING, unit)).read(), re.M)


class Manager:
    """A service manager: hears what a process says to it."""

    def __init__(self, path):
        self.path, self.heard = path, []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        os.chmod(path, 0o777)
        self.socket.settimeout(0.1)

    def environment(self, watchdog_us):
        return dict(os.environ, NOTIFY_SOCKET=self.path, WATCHDOG_USEC=str(watchdog_us))

    def listen(self):
        try:
            while True:
                self.heard.append(self.socket.recv(4096).decode())
        except TimeoutError:
            return self.heard

    def wait(self, word, more=1, timeout=60):
        """Until it was said `more` times from now on."""
        before, end = sum(x.startswith(word) for x in self.listen()), time.monotonic() + timeout
        while sum(x.startswith(word) for x in self.listen()) < before + more:
            assert time.monotonic() < end, (word, self.heard)


def test_both_programs_speak_to_their_manager():
    with L.Lab(memory_mb=256, upstreams=1) as lab:
        config = lab.write("bootstrap.json", dict(L.bootstrap([], []), dataplane=lab.dataplane_section()))
        # With the rights that the unit leaves, and no more.
        kept = [c.removeprefix("CAP_").lower() for c in unit_setting("millrace-dataplane.service", "CapabilityBoundingSet")[0].split()]
        # As the package has it: the run directory is root's and the group's, control is another user of that group.
        os.chmod(lab.dir, 0o755)
        os.makedirs(lab.run_dir, exist_ok=True)
        os.chown(lab.run_dir, 0, NOBODY)
        os.chmod(lab.run_dir, 0o770)
        only = ["setpriv", "--regid", str(NOBODY), "--clear-groups", "--bounding-set", "-all," + ",".join("+" + c for c in kept), "--no-new-privs"]
        manager = Manager(lab.dir + "/notify-dataplane")
        dataplane = lab.start("dataplane", [*only, L.program("millrace-dataplane"), "--config", config, "--run-dir", lab.run_dir], lab.gateway,
                              env=manager.environment(400_000))
        manager.wait("READY=1", more=1 - sum(x.startswith("READY=1") for x in manager.listen()))
        ready = next(x for x in manager.heard if x.startswith("READY=1"))
        pid = int(re.search(r"^MAINPID=(\d+)$", ready, re.M)[1])
        assert open(f"/proc/{pid}/comm").read().startswith("millrace-datap") and manager.heard.index(ready) == 0
        rights = re.search(r"^CapBnd:\s*(\w+)$", open(f"/proc/{pid}/status").read(), re.M)[1]
        assert bin(int(rights, 16)).count("1") == len(kept)
        manager.wait("WATCHDOG=1", 3)

        control_manager = Manager(lab.dir + "/notify-control")
        control = lab.start("control", ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--bounding-set", "-all", "--no-new-privs",
                                        L.program("millrace-control"), "--config", config, "--run-dir", lab.run_dir],
                            env=control_manager.environment(400_000))
        control_manager.wait("READY=1", more=1 - sum(x.startswith("READY=1") for x in control_manager.listen()))
        control_manager.wait("WATCHDOG=1", 3)
        lab.wait_in_force()
        # Memory is never writable and executable at once (MemoryDenyWriteExecute of control).
        for process in pid, control.popen.pid:
            assert not re.search(r"^\S+ \S*w\S*x", open(f"/proc/{process}/maps").read(), re.M)

        control.popen.send_signal(signal.SIGTERM)
        assert control.popen.wait(30) == 0 and control_manager.listen()[-1] == "STOPPING=1"
        dataplane.popen.send_signal(signal.SIGTERM)
        dataplane.popen.wait(60)
        assert manager.listen()[-1] == "STOPPING=1"
