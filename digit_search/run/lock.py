"""The lock of a run's folder: one process at a time works on a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digit_search.errors import RunFolderError

LOCK = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, without waiting for it. The system releases it when the process ends, however it ends.

    Raises RunFolderError if another process holds it, or the file cannot be opened or locked.
    """
    path = folder / LOCK
    try:
        # O_RDWR does not wait at a pipe. O_NOFOLLOW, which Windows lacks, refuses a link.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}. Fix its permissions.") from error
    try:
        if not _lock(descriptor, path):
            raise RunFolderError(f"{folder}: another process works on this run; wait for it to end")
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """Lock the file unless another process has locked it, or has deleted it since we opened it."""
    # Imported only where a lock is taken: a cluster's workers, whose filelock may be older, do not need it.
    from filelock import lock_descriptor

    try:
        # Not filelock.FileLock (4.3): on Windows it deletes the file when it releases the lock, and on a file system without locks it
        # uses the file itself as the lock, which stays if the process is killed.
        return lock_descriptor(descriptor, blocking=False) and os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be locked: {error.strerror}. Choose a --results folder on another disk.") from error
