"""What every benchmark tells of where it ran: processor, load, versions, and the memory that a process took."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path


def describe_machine(*libraries: str) -> str:
    """Processor, usable cores, load, and the versions of Python and these libraries, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"{processor()}, {cores} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"


def processor() -> str:
    """The CPU's name as Linux tells it; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_resident_bytes() -> int:
    """The most memory that this process had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would tell the parent's peak where that is higher.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
