"""Files that appear whole or not at all: a crash leaves the old one."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from digit_search.errors import StorageError

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that replaces `path` once all of it is on the disk. Until then the old file is there, even after a power cut.

    Raises StorageError if it cannot be written, or, on Windows, if another program has the old file open. The old file is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        # "x" does not follow a link that a stranger put there.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        # If the folder has become read-only, `delete_temporary_files` deletes it later.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file as `atomic_file` does. Text is UTF-8."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def delete_temporary_files(folder: Path) -> None:
    """Delete the half-written files of killed processes. No other process may be writing in the folder."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)
