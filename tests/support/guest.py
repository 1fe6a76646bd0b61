"""A virtual machine as a network device's other side: QEMU emulates a virtio NIC that spreads flows over its queues by Toeplitz hash (RSS), which no
device of this host does. The guest is a Debian kernel (scripts/setup --peers fetches it) and an initramfs made here of our own programs, the
libraries they need and busybox; nothing of it is kept. It runs under emulation (TCG): KVM is not to be had everywhere, and a minute or two do.

    namespace of the caller                             guest
    tap0, N queues ── QEMU virtio-net (rss=on) ──────── 0000:00:04.0, uio_pci_generic ── millrace-dataplane
                        a shell on the serial line ◀─── millctl, from guest.run(...)
"""
import os
import re
import shutil
import stat
import subprocess
import time

import lab

PEERS = os.environ.get("MILLRACE_PEERS", os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "millrace-peers"))
KERNEL = os.path.join(PEERS, "guest", "vmlinuz")
MODULES = [os.path.join(PEERS, "guest", m) for m in ("uio.ko", "uio_pci_generic.ko")]
PCI_SLOT = 4
DEVICE = f"0000:00:{PCI_SLOT:02x}.0"
DPDK = "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0"
DRIVERS = ("librte_bus_pci", "librte_bus_vdev", "librte_mempool_ring", "librte_net_virtio", "librte_net_bond")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
chmod 755 /  # DPDK loads drivers only from where nobody else can write
mkdir -p /proc /sys /dev /run /var/run /tmp
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir -p /dev/hugepages /dev/shm; mount -t hugetlbfs huge /dev/hugepages; mount -t tmpfs shm /dev/shm
ip link set lo up
insmod /modules/uio.ko; insmod /modules/uio_pci_generic.ko
echo uio_pci_generic > /sys/bus/pci/devices/%(device)s/driver_override
echo %(device)s > /sys/bus/pci/drivers/uio_pci_generic/bind
stty -echo
PS1= exec sh -c 'echo guest is up; while read -r line; do eval "$line" < /dev/null; echo "=== $?"; done' 2>&1
""" % {"device": DEVICE}


def missing():
    """What keeps a guest from running here, in a sentence; None: nothing."""
    if shutil.which("qemu-system-x86_64") is None or shutil.which("busybox") is None:
        return "qemu-system-x86 or busybox-static is not installed; run scripts/setup --peers"
    if not all(os.path.exists(f) for f in [KERNEL, *MODULES]):
        return "no kernel for a guest; run scripts/setup --peers"
    return None


def libraries(paths):
    """Every shared library that these files need, and the loader."""
    found = set()
    for path in paths:
        for line in lab.run(["ldd", path]).stdout.decode().splitlines():
            m = re.search(r"(/\S+) \(0x", line)
            if m:
                found.add(m.group(1))
    return found


class Archive:
    """An initramfs: cpio in its "new ASCII" form, written as it comes."""

    def __init__(self, path):
        self.file, self.made, self.inode = open(path, "wb"), {""}, 0

    def _entry(self, name, mode, data=b""):
        self.inode += 1
        name = name.encode() + b"\0"
        head = b"070701" + b"".join(b"%08x" % v for v in (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)) + name
        self.file.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def folder(self, name):
        name = name.strip("/")
        if name in self.made:
            return
        self.folder(os.path.dirname(name))
        self.made.add(name)
        self._entry(name, stat.S_IFDIR | 0o755)

    def add(self, name, data, executable=True):
        name = name.strip("/")
        if name in self.made:
            return
        self.folder(os.path.dirname(name))
        self.made.add(name)
        self._entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def copy(self, path, name=None):
        """The file, where it really is, and under this name. One file under two names would be two libraries to the loader."""
        real = os.path.realpath(path)
        if name is None and real != path:
            self.copy(real)
            link = path.strip("/")
            if link not in self.made:
                self.folder(os.path.dirname(link))
                self.made.add(link)
                self._entry(link, stat.S_IFLNK | 0o777, real.encode())
            return
        with open(real, "rb") as f:
            self.add(name or path, f.read())

    def close(self):
        self._entry("TRAILER!!!", 0)
        self.file.close()


class Guest:
    """One virtual machine; `files` {path: text} lie in its root. `namespace` has the TAP interface `tap` with so many queues."""

    def __init__(self, folder, namespace, tap, queues, files, memory_mb=2560, hugepages=300):
        image = os.path.join(folder, "initramfs")
        archive = Archive(image)
        programs = [lab.program(p) for p in ("millrace-dataplane", "millrace-control", "millctl")]
        drivers = [os.path.join(DPDK, d + ".so.23") for d in DRIVERS]
        archive.add("init", INIT.encode())
        archive.copy(shutil.which("busybox"), "bin/busybox")
        for p in programs:
            archive.copy(p, "bin/" + os.path.basename(p))
        for p in sorted(libraries(programs + drivers)) + drivers:
            archive.copy(p)
        for m in MODULES:
            archive.copy(m, "modules/" + os.path.basename(m))
        for name, text in files.items():
            archive.add(name, text.encode(), executable=False)
        archive.close()
        vectors = 2 * queues + 2
        argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory_mb), "-nodefaults",
                "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", KERNEL, "-initrd", image,
                "-append", f"console=ttyS0 quiet no_timer_check panic=-1 hugepages={hugepages} rdinit=/init",
                "-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no,queues={queues},vhost=off",
                "-device", f"virtio-net-pci,netdev=net,addr={PCI_SLOT},mac=52:54:00:77:01:01,mq=on,vectors={vectors},rss=on,"
                           "disable-legacy=on,csum=off,guest_csum=off,gso=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,"
                           "host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,mrg_rxbuf=on"]
        self.log_path = os.path.join(folder, "guest.log")
        self.out = open(self.log_path, "wb")
        self.popen = subprocess.Popen(namespace.argv(argv), stdin=subprocess.PIPE, stdout=self.out, stderr=subprocess.STDOUT, start_new_session=True)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read().replace("\r", "")

    def wait(self, text, timeout, since=0):
        """Until the serial line has said `text`; what it said since `since` (characters)."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            said = self.log()[since:]
            if text in said:
                return said
            if self.popen.poll() is not None:
                raise lab.LabError(f"the guest ended with {self.popen.returncode}:\n{self.log()[-3000:]}")
            time.sleep(0.1)
        raise lab.LabError(f"the guest did not say {text!r} in {timeout} s:\n{self.log()[-3000:]}")

    def run(self, command, timeout=60):
        """A shell command in the guest, to its end; (exit code, output)."""
        since = len(self.log())
        self.popen.stdin.write(command.encode() + b"\n")
        self.popen.stdin.flush()
        end = time.monotonic() + timeout
        while True:
            said = self.wait("=== ", max(end - time.monotonic(), 0.1), since)
            m = re.search(r"^=== (\d+)$", said, re.M)
            if m:
                return int(m.group(1)), said[:m.start()]
            time.sleep(0.05)

    def stop(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.out.close()
