"""What a system has taken of the machine's memory, everything counted: its processes' private and shared pages (Pss, so that what two of them share
counts once), hugepages, page tables; and what the kernel keeps for it (slab: sockets, files, inodes, timers; the buffers of its sockets)."""
import re

FILE_SYSTEM_SLABS = re.compile(r"ext4|jbd2|xfs|btrfs|fuse|buffer_head|radix_tree|xarray|proc_inode|kernfs|shmem_inode|squashfs|overlay|bio|blk|iommu")


def lines(path):
    with open(path) as f:
        return f.read().splitlines()


def process_bytes(pid):
    """(ordinary pages, hugepages, page tables) of one process, in bytes."""
    pss = huge = tables = 0
    try:
        for line in lines(f"/proc/{pid}/smaps_rollup"):
            word, _, rest = line.partition(":")
            if word == "Pss":
                pss = int(rest.split()[0]) * 1024
            elif word in ("Private_Hugetlb", "Shared_Hugetlb"):
                huge += int(rest.split()[0]) * 1024
        for line in lines(f"/proc/{pid}/status"):
            if line.startswith("VmPTE:"):
                tables = int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return pss, huge, tables


def slab_bytes():
    """Kernel memory in objects of slabs that are in use (freed ones stay with their slab for a while), but those of file systems, which grow and shrink
    with what everybody else does."""
    total = 0
    for line in lines("/proc/slabinfo"):
        f = line.split()
        if len(f) > 15 and not line.startswith("#") and not FILE_SYSTEM_SLABS.search(f[0]):
            total += int(f[1]) * int(f[3])  # objects in use * size of one
    return total


def measure(system):
    """{part: bytes} now."""
    parts = {"pages": 0, "hugepages": 0, "page tables": 0}
    for pid in system.pids():
        for part, n in zip(parts, process_bytes(pid)):
            parts[part] += n
    parts["kernel"] = slab_bytes() if system.kernel else 0
    return parts


def difference(before, after):
    return {k: after[k] - before[k] for k in after}


def available():
    for line in lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
