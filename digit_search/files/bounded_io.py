"""Files that anyone may have written: read within a limit, never from a pipe or a device, and parsed in a way that fails in one way."""

import errno
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from digit_search.machine_limits import usable_memory

MAX_JSON_BYTES = 1 << 22
"""Of environment.json, some 2 KB: it repeats the settings, which take at most a quarter of this (`loading.MAX_CONFIG_BYTES`)."""
LEAST_FILE_BYTES = 1 << 29
"""Over a million reports in events.jsonl, or 600,000 digits in validation.arrow."""
SHARE_OF_MEMORY = 8
"""As objects, a run's reports take 1.3 times as much as in their file, and the tables that are made of them come on top."""
MAX_DOTS_A_LINE = 200
MAX_INT_DIGITS = 20
"""Of the largest of 64 bits, as an inode may have."""


def max_file_bytes() -> int:
    """Of a run's file that grows with the run: none of ours gets there unless the run itself is too large for this machine's memory.

    No setting: a run's settings come with its folder, so a stranger's would raise the limit for the stranger's files.
    """
    return max(LEAST_FILE_BYTES, (usable_memory() or 0) // SHARE_OF_MEMORY)


@contextmanager
def open_bounded(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a regular file to read.

    Raises:
        OSError: if it cannot be read, is no regular file or holds more than `max_bytes`; `strerror` tells which.
    """
    # Opened without O_NONBLOCK, a pipe that nobody writes to would be waited for without end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a file, found a folder, a pipe or a device", str(path))
        if status.st_size > max_bytes:
            raise _too_large(path, max_bytes)
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as `open_bounded`.
    """
    with open_bounded(path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(path, max_bytes)
    return content


def _too_large(path: Path, max_bytes: int) -> OSError:
    advice = ""
    if max_bytes == max_file_bytes():
        advice = f"; the limit is an eighth of the memory that there is, at least {LEAST_FILE_BYTES >> 20} MiB: take a machine with more"
    return OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, found more{advice}", str(path))


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


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: if it is none, also where a number has thousands of digits or lists are nested too deeply for Python's parser.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        # tomllib's time grows with the square of a dotted key's length: one of 40,000 letters would take it seconds, a long one for ever.
        if line.count(".") > MAX_DOTS_A_LINE:
            raise ValueError(f"more than {MAX_DOTS_A_LINE} dots in line {number}; break the line")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("lists or tables that are nested too deeply") from error


def is_nested_beyond(tree: Mapping[str, Any], depth: int) -> bool:
    """Whether tables and lists lie in each other more deeply than that; nothing recurses to find out."""
    level: list[Any] = [tree]
    for _ in range(depth):
        level = [item for value in level for item in (value.values() if isinstance(value, Mapping) else value)]
        level = [item for item in level if isinstance(item, Mapping | list)]
        if not level:
            return False
    return True
