"""The cores and the memory that this process may use. On Linux, control groups (cgroups, version 1 and 2) can limit both."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC_CGROUP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 1 << 60
"""Version 1 writes a number near 2^63 for "no limit"."""


def usable_cores() -> float:
    """CPU time that this process may use, in cores: those of the machine, or fewer if a container or an affinity limits them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, core_limit() or cores)


def core_limit(proc: Path = PROC_CGROUP, root: Path = CGROUP_ROOT) -> float | None:
    """The cgroup's limit of CPU time, in cores; None for no limit."""
    limits = []
    for folder in _folders(proc, root, "cpu"):
        words = _text(folder / "cpu.max").split() or [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]
        # The quota is "max" in version 2 and -1 in version 1 for no limit.
        if len(words) == 2 and all(map(str.isdecimal, words)) and int(words[1]):
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def memory_limit(proc: Path = PROC_CGROUP, root: Path = CGROUP_ROOT) -> int | None:
    """Bytes of memory that the processes of this process's cgroup may use together; None for no limit."""
    files = [folder / name for folder in _folders(proc, root, "memory") for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [int(text) for text in map(_text, files) if text.isdecimal()]
    return min((limit for limit in limits if limit < UNLIMITED_BYTES), default=None)


def usable_memory() -> int | None:
    """Bytes of memory that this process may use; None if unknown."""
    return min((limit for limit in (total_memory(), memory_limit()) if limit), default=None)


def total_memory() -> int:
    """Bytes of the machine's memory; 0 if psutil is not installed, so that the doctor can still run and report that."""
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.virtual_memory().total)


def _folders(proc: Path, root: Path, controller: str) -> Iterator[Path]:
    """The folders whose limits apply to this process: its cgroup's and those above it.

    In a container, /proc/self/cgroup may name a path of the host, which does not exist there; then the root holds the container's limits.
    """
    for line in _text(proc).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [root / controllers, root / controller] if controllers else [root, root / "unified"]
        for mount in mounts:
            group = mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder == mount or mount in folder.parents)


def _text(path: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
