"""The machine: Python, cores, memory, shared memory and the place for results. Uses the standard library only."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from digit_search.doctor.finding import Finding, ok, problem, warning
from digit_search.errors import StorageError
from digit_search.files.object_store import Remote, parse_location
from digit_search.machine_limits import memory_limit, total_memory, usable_cores

MIB = 1 << 20
GIB = 1 << 30
OLDEST_PYTHON = (3, 11)
RUN_MEMORY = 1.2 * GIB
"""For Ray, its dashboard and the driver."""
TRIAL_MEMORY = 0.8 * GIB
"""For each trial that runs at the same time on the CPU. Measured on the embedded sample, all processes together (PSS): 2.0 GiB with one
trial at a time, 2.7 GiB with two."""
RUN_DISK = 500 * MIB
"""During a run with two trials at a time: 480 MiB measured, nearly all of it checkpoints. 45 MB remain afterwards."""
SHARED_MEMORY = Path("/dev/shm")


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Iterator[Finding]:
    found = f"{'.'.join(map(str, version))} ({sys.executable}), {platform.platform()}"
    if version[:2] < OLDEST_PYTHON:
        yield problem("Python", found, "install Python 3.11 or newer and make a new virtual environment with it")
    else:
        yield ok("Python", found)


def check_cores(cores: float | None = None, machine_cores: int | None = None) -> Iterator[Finding]:
    """How many cores this process may use."""
    cores, machine = cores or usable_cores(), machine_cores or os.cpu_count() or 1
    found = f"{cores:g} of the machine's {machine}"
    if cores < 1:
        yield warning("cores", f"{found}: a container or a service allows less than one", "allow one or more; a trial takes one")
    else:
        yield ok("cores", f"{found}, as a container, a service or an affinity allows" if cores < machine else f"{cores:g}")


def check_memory(total: int | None = None, limit: int | None = None, cores: float | None = None) -> Iterator[Finding]:
    """Whether one trial per core fits: Ray ends workers when memory runs out."""
    total = total_memory() if total is None else total
    limit = memory_limit() if limit is None else limit
    usable = min(filter(None, (total, limit)), default=0)
    cores = int(cores or usable_cores()) or 1
    if not usable:
        yield ok("memory", "unknown on this system")
        return
    found = f"{usable / GIB:.1f} GiB" + (f" allowed by a container or service, of {total / GIB:.1f}" if usable < total else "")
    fits = int((usable - RUN_MEMORY) // TRIAL_MEMORY)
    if fits < 1:
        yield problem("memory", found, f"a run needs {(RUN_MEMORY + TRIAL_MEMORY) / GIB:.1f} GiB with one trial at a time; allow more")
    elif fits < cores:
        yield warning("memory", f"{found}: not enough for {cores} trials at a time on the CPU", f"run fewer at a time: --workers {fits}")
    else:
        yield ok("memory", found)


def check_shared_memory(needed_mib: int, folder: Path = SHARED_MEMORY, usage: Callable = shutil.disk_usage) -> Iterator[Finding]:
    """Whether Ray's object store fits into shared memory. If it does not, Ray (on Linux) uses a disk, which is slow."""
    if not folder.is_dir():
        if sys.platform == "linux":
            yield warning(str(folder), "does not exist; Ray keeps its objects on a disk instead", "mount a tmpfs there")
        return
    free = usage(folder).free
    found = f"{free // MIB:,} MiB free; ray.object_store_mib is {needed_mib}"
    if free < needed_mib * MIB:
        remedy = f"docker run --shm-size={2 * needed_mib}m, an emptyDir of medium Memory on Kubernetes, or a smaller ray.object_store_mib"
        yield warning(str(folder), found, remedy)
    else:
        yield ok(str(folder), found)


def check_results(results: str, usage: Callable = shutil.disk_usage) -> Iterator[Finding]:
    """Whether a run can be written to `results`, a folder or the URI of an object store."""
    place = parse_location(results)
    yield _check_folder(place, usage) if isinstance(place, Path) else _check_store(place)


def _check_store(place: Remote) -> Finding:
    name = f"doctor-{os.getpid()}.tmp"
    try:
        place.put(name, b"x")
        place.get(name, 1)
        place.delete(name)
    except StorageError as error:
        return problem("results", str(error), "fix that, or name another place with --results")
    return ok("results", f"{place.display_uri('').rstrip('/')}: a file can be written, read and deleted there")


def _check_folder(results: Path, usage: Callable) -> Finding:
    """Whether a run can be written to a folder, or to the nearest of its parents that exists, and has space there."""
    folder = results.absolute()
    if folder.exists() and not folder.is_dir():
        return problem("results", f"{results} is a file", "name a folder with --results")
    folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return problem("results", f"{folder} cannot be written: {error.strerror}", "fix that, or name another folder with --results")
    free = usage(folder).free
    found = f"{results}: {free / GIB:.1f} GiB free; a run needs about {RUN_DISK // MIB} MiB while it works"
    if free < RUN_DISK:
        return problem("results", found, "free some space, or name a folder on another disk with --results")
    if free < 3 * RUN_DISK:
        return warning("results", found, "many workers or runs will need more; free some space")
    return ok("results", found)
