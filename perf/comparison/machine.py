"""The machine that a run was made on, and the versions of everything that took part."""
import os
import platform
import re
import time

from .bench import ROOT, run


def first_match(path, pattern):
    try:
        for line in open(path):
            m = re.match(pattern, line)
            if m:
                return m.group(1).strip()
    except OSError:
        pass
    return None


def dpdk_version():
    p = run(["pkg-config", "--modversion", "libdpdk"], check=False)
    return p.stdout.decode().strip() or None


def describe(systems, settings, bench):
    commit = run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=False).stdout.decode().strip() or None
    dirty = bool(run(["git", "-C", ROOT, "status", "--porcelain", "-uno"], check=False).stdout.strip())
    flags = set((first_match("/proc/cpuinfo", r"flags\s*:(.*)") or "").split())
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": first_match("/proc/cpuinfo", r"model name\s*:(.*)"),
        "cores": os.cpu_count(),
        "device_under_test_core": bench.dut_core,
        "generator_core": bench.generator_core,
        "mhz": first_match("/proc/cpuinfo", r"cpu MHz\s*:(.*)"),
        "hypervisor": "hypervisor" in flags,
        "memory_gb": round(int(first_match("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / 1e6, 1),
        "kernel": platform.release(),
        "system": first_match("/etc/os-release", r'PRETTY_NAME="?([^"\n]*)'),
        "load_before": round(os.getloadavg()[0], 2),
        "dpdk": dpdk_version(),
        "openssl": run(["openssl", "version"], check=False).stdout.decode().split("(")[0].strip(),
        "commit": commit and commit + ("-dirty" if dirty else ""),
        "versions": {name: s.version() for name, s in systems.items()},
        "veth_driver": bench.veth_driver, "veth_steering": bench.steering,
        "open_files_a_process": bench.open_files,
        "repetitions": settings.repetitions, "warmup_s": settings.warmup, "duration_s": settings.duration,
    }


def lines(m):
    """For the terminal."""
    where = " in a virtual machine" if m["hypervisor"] else ""
    return [
        f"{m['cpu']}{where}, {m['cores']} cores (device under test on {m['device_under_test_core']}, generator on {m['generator_core']}), "
        f"{m['memory_gb']:.0f} GB; {m['system']}, Linux {m['kernel']}; load before {m['load_before']}",
        f"DPDK {m['dpdk']}, {m['openssl']}; " + ", ".join(f"{k} {v}" for k, v in m["versions"].items() if v) + f"; commit {(m['commit'] or '?')[:12]}"
        + ("-dirty" if (m["commit"] or "").endswith("-dirty") else ""),
    ]
