"""Shared by all benchmarks: makes digit_search importable, describes the machine, and measures the memory of a process."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

# `python benchmarks/NAME.py` puts benchmarks/ on sys.path, and not the repository root. Each benchmark imports this module first.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def describe_machine(*libraries: str) -> str:
    """Processor, usable cores, load, and the versions of Python and of these libraries, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"{processor()}, {cores} cores{load}; Python {platform.python_version()}, {versions}"


def processor() -> str:
    """The name of the CPU as Linux reports it, otherwise as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_resident_bytes() -> int:
    """The peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # After a fork, getrusage reports the parent's peak if that is higher.
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
