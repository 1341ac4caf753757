"""How a file is written so that a crash leaves the old one."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from digit_search.errors import StorageError

TEMPORARY = ".tmp"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes the old one's place when all of it is on the disk: at every moment one of them is there.

    Raises:
        StorageError: if the disk does not take it; the old file is still there then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        # "x" follows no link that somebody put there before.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        # A folder that turned read-only keeps it; `sweep` deletes it later.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that at every moment either the old or the new content is there, also after a power cut.

    Raises:
        StorageError: if the disk does not take it.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def delete_temporary_files(folder: Path) -> None:
    """Delete half-written files whose writer was killed. Nobody else may be writing in the folder."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)
