"""The machine: Python, cores, memory, shared memory, disks, open files. With the standard library alone."""

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
TRIAL_MEMORY = 0.8 * GIB
"""Of Ray, its dashboard and the driver, and of each trial at a time on the CPU. Measured in all processes together (PSS) on the embedded
sample: 2.0 GiB with one trial at a time, 2.7 GiB with two."""
RUN_DISK = 500 * MIB
"""While a run goes on, two trials at a time: 480 MiB measured, nearly all of it checkpoints. 45 MB stay."""
SHARED_MEMORY = Path("/dev/shm")
TEMPORARY_DISK = 1 * GIB
FULL_FRACTION = 0.95
"""Ray (2.60) writes no objects to a disk that is fuller than this."""
FEWEST_FILES = 1024


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Iterator[Finding]:
    """Old Pythons fail at the first import."""
    found = f"{'.'.join(map(str, version))} ({sys.executable}), {platform.platform()}"
    if version[:2] < OLDEST_PYTHON:
        yield problem("Python", found, "install Python 3.11 or newer and make the virtual environment anew with it")
    else:
        yield ok("Python", found)


def check_cores(cores: float | None = None, machine_cores: int | None = None) -> Iterator[Finding]:
    """What a container allows counts, not what the machine has."""
    cores, machine = cores or usable_cores(), machine_cores or os.cpu_count() or 1
    found = f"{cores:g} of the machine's {machine}"
    if cores < 1:
        yield warning("cores", f"{found}: a container or a service allows less than one", "allow one or more; a trial takes one")
    elif cores < machine:
        yield ok("cores", f"{found}, as a container, a service or an affinity allows")
    else:
        yield ok("cores", f"{cores:g}")


def check_memory(total: int | None = None, limit: int | None = None, cores: float | None = None) -> Iterator[Finding]:
    """Ray ends workers when memory runs out, so a trial a core must fit."""
    total = total_memory() if total is None else total
    limit = memory_limit() if limit is None else limit
    cores = int(cores or usable_cores()) or 1
    usable = min(filter(None, (total, limit)), default=0)
    if not usable:
        yield ok("memory", "unknown here")
        return
    found = f"{usable / GIB:.1f} GiB" + (f" allowed by a container or service, of {total / GIB:.1f}" if limit and limit < total else "")
    fits = int((usable - RUN_MEMORY) // TRIAL_MEMORY)
    if fits < 1:
        yield problem("memory", found, f"a run needs {(RUN_MEMORY + TRIAL_MEMORY) / GIB:.1f} GiB with one trial at a time; allow more")
    elif fits < cores:
        yield warning("memory", f"{found}: not enough for {cores} trials at a time on the CPU", f"run fewer at a time: --workers {fits}")
    else:
        yield ok("memory", found)


def check_shared_memory(needed_mib: int, folder: Path = SHARED_MEMORY, usage: Callable = shutil.disk_usage) -> Iterator[Finding]:
    """Ray's object store lies there on Linux; where it does not fit, Ray takes a disk instead, which is slow."""
    if not folder.is_dir():
        if sys.platform == "linux":
            yield warning(str(folder), "is not there; Ray keeps its objects on a disk instead", "mount a tmpfs there")
        return
    free = usage(folder).free
    found = f"{free // MIB:,} MiB free; ray.object_store_mib is {needed_mib}"
    if free < needed_mib * MIB:
        remedy = f"docker run --shm-size={2 * needed_mib}m, an emptyDir of medium Memory on Kubernetes, or a smaller ray.object_store_mib"
        yield warning(str(folder), found, remedy)
    else:
        yield ok(str(folder), found)


def check_results(results: str, usage: Callable = shutil.disk_usage) -> Iterator[Finding]:
    """Whether a run can be written where results go, a folder or a place in an object store."""
    place = parse_location(results)
    yield from check_folder(place, usage) if isinstance(place, Path) else check_store(place)


def check_store(place: Remote) -> Iterator[Finding]:
    """Whether an object store takes a file, gives it back and deletes it."""
    name = f"doctor-{os.getpid()}.tmp"
    try:
        place.put(name, b"x")
        place.get(name, 1)
        place.delete(name)
    except StorageError as error:
        yield problem("results", str(error), "or name another place with --results")
    else:
        yield ok("results", f"{place.display_uri('').rstrip('/')}: a file can be written, read and deleted there")


def check_folder(results: Path, usage: Callable = shutil.disk_usage) -> Iterator[Finding]:
    """Whether a disk takes a run."""
    folder = results.absolute()
    if folder.exists() and not folder.is_dir():
        yield problem("results", f"{results} is a file", "name a folder with --results")
        return
    folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        yield problem("results", f"{folder} cannot be written: {error.strerror}", "mend that, or name another folder with --results")
        return
    free = usage(folder).free
    found = f"{results}: {free / GIB:.1f} GiB free; a run takes about {RUN_DISK // MIB} MiB while it goes on"
    if free < RUN_DISK:
        yield problem("results", found, "make space, or name a folder on another disk with --results")
    elif free < 3 * RUN_DISK:
        yield warning("results", found, "many workers or runs will need more; make space")
    else:
        yield ok("results", found)


def check_temporary(folder: Path | None = None, usage: Callable = shutil.disk_usage) -> Iterator[Finding]:
    """Ray's logs, sockets and spilled objects."""
    folder = folder or Path(tempfile.gettempdir())
    disk = usage(folder)
    found = f"{folder}: {disk.free / GIB:.1f} GiB free"
    if disk.free < TEMPORARY_DISK or disk.used > FULL_FRACTION * disk.total:
        yield warning("temporary files", found, "make space, or let TMPDIR and RAY_TMPDIR name a folder on another disk")
    else:
        yield ok("temporary files", found)


def check_open_files(limit: int | None = None) -> Iterator[Finding]:
    """Ray raises the soft limit up to the hard one by itself, so the hard one counts."""
    if limit is None:
        try:
            import resource
        except ImportError:
            # Windows has no such limit.
            return
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = sys.maxsize if limit == resource.RLIM_INFINITY else limit
    if limit < FEWEST_FILES:
        yield warning("open files", f"at most {limit}", "ulimit -n 65536 before the run: Ray keeps a dozen files open a worker")
    else:
        yield ok("open files", "no limit" if limit == sys.maxsize else f"at most {limit:,}")
