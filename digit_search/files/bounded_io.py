"""Reads files that a stranger may have written: up to a limit, never from a pipe or a device, and with one kind of error."""

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
"""For environment.json, which has about 2 KB. It repeats the settings, which take at most a quarter of this (`MAX_CONFIG_BYTES`)."""
MIN_FILE_LIMIT_BYTES = 1 << 29
"""Enough for over a million reports in events.jsonl, or 600,000 digits in validation.arrow."""
MEMORY_DIVISOR = 8
"""A file may have an eighth of the memory: as objects, a run's reports take 1.3 times their bytes in the file, and the tables take more."""
MAX_DOTS_A_LINE = 200
MAX_INT_DIGITS = 20
"""As many as the largest unsigned number of 64 bits has, e.g. an inode's."""


def max_file_bytes() -> int:
    """The limit for a file that grows with its run. A run whose own files exceed it is too large for this machine's memory.

    It is not a setting: settings come with a run's folder, so a stranger could raise the limit for the stranger's own files.
    """
    return max(MIN_FILE_LIMIT_BYTES, (usable_memory() or 0) // MEMORY_DIVISOR)


def _open_regular(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for a writer. Windows has neither this flag nor pipes in a folder.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a file, found a folder, a pipe or a device", path)
    return descriptor


@contextmanager
def open_bounded(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a regular file to read.

    Raises:
        OSError: if it cannot be read, is not a regular file or has more than `max_bytes`; `strerror` has the reason.
    """
    with open(path, "rb", opener=_open_regular) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise _too_large(path, max_bytes)
        yield file


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError as `open_bounded` does."""
    with open_bounded(path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(path, max_bytes)
    return content


def _too_large(path: Path, max_bytes: int) -> OSError:
    advice = ""
    if max_bytes == max_file_bytes():
        minimum = f"{MIN_FILE_LIMIT_BYTES >> 20} MiB"
        advice = f"; the limit is an eighth of this machine's memory, and at least {minimum}: use a machine with more memory"
    return OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, found more{advice}", str(path))


def _small_int(text: str) -> int:
    if len(text) > MAX_INT_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text}, which is not a number")


_DECODER = json.JSONDecoder(parse_int=_small_int, parse_constant=_refuse_constant)


def parse_json(content: bytes) -> Any:
    """Parse JSON in UTF-8. Raises ValueError for anything else, NaN, Infinity, integers of over 20 digits and very deep nesting."""
    try:
        return _DECODER.decode(content.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises ValueError for anything else, numbers of thousands of digits, and nesting too deep for Python's parser."""
    for number, line in enumerate(text.split("\n"), start=1):
        # tomllib's time grows with the square of a dotted key's length: a key of 40,000 letters takes seconds.
        if line.count(".") > MAX_DOTS_A_LINE:
            raise ValueError(f"more than {MAX_DOTS_A_LINE} dots in line {number}; break the line")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("lists or tables that are nested too deeply") from error


def is_nested_beyond(value: Any, depth: int) -> bool:
    """Whether tables and lists are nested more deeply than `depth`."""
    if not isinstance(value, Mapping | list):
        return False
    items = value.values() if isinstance(value, Mapping) else value
    return depth == 0 or any(is_nested_beyond(item, depth - 1) for item in items)
