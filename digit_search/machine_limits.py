"""What a container or a service manager allows: the limits of Linux's control groups (cgroups), version 1 and 2."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC_CGROUP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 1 << 60
"""Version 1 says "no limit" with a number near 2^63."""


def usable_cores() -> float:
    """Cores' worth of time that this process may use, which a container or an affinity may hold below what the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, core_limit() or cores)


def core_limit(proc: Path = PROC_CGROUP, root: Path = CGROUP_ROOT) -> float | None:
    """Cores' worth of time that this process may use, None for no limit."""
    limits = []
    for folder in _folders(proc, root, "cpu"):
        quota, period = _words(folder / "cpu.max")[:2] or ("", "")
        if not quota:
            quota, period = ("".join(_words(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        # "max" in version 2 and -1 in version 1 are no limit.
        if quota.isdecimal() and period.isdecimal() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit(proc: Path = PROC_CGROUP, root: Path = CGROUP_ROOT) -> int | None:
    """Bytes that this process and those beside it in its group may use, None for no limit."""
    limits = []
    for folder in _folders(proc, root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = "".join(_words(folder / name))
            if text.isdecimal() and int(text) < UNLIMITED_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def usable_memory() -> int | None:
    """Bytes of memory that this process may use, None where nobody tells."""
    return min((limit for limit in (total_memory(), memory_limit()) if limit), default=None)


def total_memory() -> int:
    """Bytes of the machine, 0 where Python cannot tell without a library."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _folders(proc: Path, root: Path, controller: str) -> Iterator[Path]:
    """The folders whose limits hold for this process: its group's and those above it.

    In a container the path in /proc/self/cgroup may be the host's, which is not there; the container's own limits then lie at the root.
    """
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        mounts = [root / controllers, root / controller] if controllers else [root, root / "unified"]
        if controllers and controller not in controllers.split(","):
            continue
        for mount in dict.fromkeys(mounts):
            group = mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder == mount or mount in folder.parents)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
