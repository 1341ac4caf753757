"""Files that anyone may have written: read within a limit, never from a pipe or a device, and parsed in a way that fails in one way."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 1 << 20
"""Of a file that is read whole, as environment.json is: some 2 KB."""
MAX_INT_DIGITS = 20
"""Of the largest of 64 bits, as an inode may have."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: if it cannot be read, is no regular file or holds more than `max_bytes`; `strerror` tells which.
    """
    # Opened without O_NONBLOCK, a pipe that nobody writes to would be waited for without end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a file, found a folder, a pipe or a device", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            content = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if max(status.st_size, len(content)) > max_bytes:
        raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, found more", str(path))
    return content


def _small_int(text: str) -> int:
    if len(text) > MAX_INT_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text}, which is no number")


_DECODER = json.JSONDecoder(parse_int=_small_int, parse_constant=_no_number)


def parse_json(content: bytes) -> Any:
    """Parse JSON in UTF-8 whose integers have at most 20 digits, without NaN and Infinity.

    Raises:
        ValueError: if it is anything else, also where it is nested too deeply.
    """
    try:
        return _DECODER.decode(content.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
