"""What a run of the comparison takes from the machine, and gives back: a directory, namespaces, processes, kernel settings. Everything carries the
process id in its name, so that two runs do not touch each other; close() is called at the end of everything, also after a failure or Ctrl-C, and what a
killed run left behind is cleared away by the next one."""
import atexit
import glob
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
import lab  # noqa: E402
from lab import LabError, Namespace, run  # noqa: E402, F401

PREFIX = "mrb"  # of every namespace and directory: mrb<pid>…
OPEN_FILES = 4_000_000  # of one process: a million connections and as many towards servers, where the machine lets us


class Process(lab.Process):
    """A program on one core, in a namespace, that is gone after stop() together with all its children."""

    def __init__(self, name, argv, log, cwd=None, env=None):
        super().__init__(name, ["setpriv", "--pdeathsig", "KILL", *argv], log, cwd=cwd, env=env)
        # Before whatever else this machine does. By group, not by process: within a system everybody stays equal.
        try:
            with open(f"/proc/{self.pid}/autogroup", "w") as f:
                f.write("-15")
        except OSError:
            pass  # a kernel without autogroups

    @property
    def pid(self):
        return self.popen.pid

    def signal(self, number):
        if self.alive():
            self.popen.send_signal(number)

    def stop(self, timeout=10):
        """SIGTERM, after `timeout` seconds SIGKILL for the whole group; returns the exit code."""
        if self.alive():
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)  # a session of its own: nothing but its children
        except (ProcessLookupError, PermissionError):
            pass
        self.popen.wait()
        self.log_file.close()
        self.log_tail_at_stop = self.tail(4)
        return self.popen.returncode

    def tail(self, lines=12):
        return "\n".join(self.log().splitlines()[-lines:])


class Bench:
    def __init__(self, dut_core, generator_core, keep=False, veth_driver="af_xdp", steering="none"):
        self.dut_core, self.generator_core, self.keep, self.veth_driver = dut_core, generator_core, keep, veth_driver
        self.steering = steering
        self.name = f"{PREFIX}{os.getpid()}"
        sweep()
        self.dir = tempfile.mkdtemp(prefix=self.name + "-")
        os.chmod(self.dir, 0o755)
        self.serial = itertools.count()
        self.processes, self.namespaces, self.settings = [], [], []
        self.closed = False
        atexit.register(self.close)
        # This program only waits; where it works it is to disturb the generator, which can tell, rather than the device under test.
        os.sched_setaffinity(0, {generator_core})

    # --- the machine ------------------------------------------------------------------------------------------------------------------
    def write_setting(self, path, value):
        """A file under /proc or /sys, put back at the end. Never lowers a limit that is higher."""
        old = open(path).read().split()[0]
        if int(old) >= int(value):
            return
        try:
            with open(path, "w") as f:
                f.write(str(value))
        except OSError:
            return  # a container: what follows from it is seen and said where it matters
        self.settings.append((path, old))

    def settle_machine(self):
        self.write_setting("/proc/sys/fs/nr_open", OPEN_FILES)
        self.write_setting("/proc/sys/fs/file-max", 4 * OPEN_FILES)
        # RPS queues packets to a core in its backlog; the default of 1,000 is less than one burst of a window.
        self.write_setting("/proc/sys/net/core/netdev_max_backlog", 30_000)
        self.open_files = raise_limit(resource.RLIMIT_NOFILE, OPEN_FILES)
        raise_limit(resource.RLIMIT_MEMLOCK, resource.RLIM_INFINITY)
        if not os.path.ismount("/sys/fs/bpf"):
            run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=False)

    def namespace(self, suffix):
        n = Namespace(f"{self.name}{suffix}{next(self.serial)}")
        self.namespaces.append(n)
        return n

    def drop_namespace(self, n):
        for pid in run(["ip", "netns", "pids", n.name], check=False).stdout.split():
            kill(int(pid))
        n.delete()
        self.namespaces.remove(n)

    def folder(self, name):
        path = os.path.join(self.dir, f"{name}-{next(self.serial)}")
        os.makedirs(path)
        return path

    # --- programs ----------------------------------------------------------------------------------------------------------------------
    def start(self, name, argv, core, namespace=None, folder=None, env=None):
        """Starts a program pinned to `core`; None: both, for DPDK's programs, which pin their polling thread themselves and want another core for the
        rest of them. Its output is in <folder>/<name>.log."""
        folder = folder or self.dir
        argv = ["taskset", "-c", f"{self.dut_core},{self.generator_core}" if core is None else str(core), *argv]
        if namespace is not None:
            argv = namespace.argv(argv)
        p = Process(name, argv, os.path.join(folder, f"{name}-{next(self.serial)}.log"), cwd=folder, env=env)
        self.processes.append(p)
        return p

    def stop(self, process, timeout=10):
        code = process.stop(timeout)
        if process in self.processes:
            self.processes.remove(process)
        return code

    def close(self):
        if self.closed:
            return
        self.closed = True
        if self.keep:
            print(f"kept: {self.dir}, namespaces {' '.join(n.name for n in self.namespaces)}; processes "
                  f"{' '.join(str(p.pid) for p in self.processes if p.alive())}", file=sys.stderr)
            return
        with Uninterrupted():
            for p in reversed(self.processes):
                try:
                    p.stop(timeout=3)
                except (OSError, LabError) as e:
                    print(f"compare: {p.name}: {e}", file=sys.stderr)
            for n in list(self.namespaces):
                self.drop_namespace(n)
            for path, old in reversed(self.settings):
                with open(path, "w") as f:
                    f.write(old)
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def raise_limit(which, wanted):
    """The limit of this process and its children, as high as it may be; returns it."""
    _, hard = resource.getrlimit(which)
    for value in (wanted, hard):
        try:
            resource.setrlimit(which, (value, value))
            return value
        except (ValueError, OSError):
            pass  # without CAP_SYS_RESOURCE the hard limit stays
    return resource.getrlimit(which)[0]


def pin_all(pid, core):
    """All threads of a process to one core."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            if os.sched_getaffinity(int(task)) != {core}:
                os.sched_setaffinity(int(task), {core})
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended


class Uninterrupted:
    """Ctrl-C waits until what is inside is done: half a clean-up is none."""

    def __enter__(self):
        self.old = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, *exc):
        for s, handler in self.old.items():
            signal.signal(s, handler)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


def sweep():
    """Clears away what runs that were killed left: their names tell their process ids."""
    for line in run(["ip", "netns", "list"], check=False).stdout.decode().splitlines():
        m = re.match(PREFIX + r"(\d+)[a-z]", line)
        if m and not alive(int(m.group(1))):
            name = line.split()[0]
            for pid in run(["ip", "netns", "pids", name], check=False).stdout.split():
                kill(int(pid))
            run(["ip", "netns", "del", name], check=False)
    for path in glob.glob(os.path.join(tempfile.gettempdir(), PREFIX + "[0-9]*-*")):
        m = re.match(PREFIX + r"(\d+)-", os.path.basename(path))
        if m and not alive(int(m.group(1))):
            shutil.rmtree(path, ignore_errors=True)


def until(condition, timeout, what, step=0.02):
    """Waits for a value that is true, and returns it."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {timeout:.0f} s")
        time.sleep(step)
