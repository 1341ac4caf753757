"""The error messages for a CSV that is refused. This is slow, and only runs when something is known to be wrong."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from digit_search.data.table import NUM_CLASSES, PIXEL_NAMES
from digit_search.errors import DataError

_INTEGER = re.compile(r"[ \t]*[0-9]+[ \t]*")
_ADVICE = "Fix the row, or download the file again."
_BINARY_KINDS = {
    b"\x1f\x8b": "gzip: give its name the ending .csv.gz",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
"""By the first bytes of a file: what it is and what to do."""


def _shown(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _fields(line: bytes) -> list[str]:
    """The cells of a line.

    Raises:
        ValueError: if quotes or a carriage return are misplaced; the message shows the line.
    """
    try:
        return next(csv.reader([line.decode("utf-8", "replace")], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"{_shown(line.decode('utf-8', 'backslashreplace'))} ({error})") from error


def _line_problem(line: bytes, names: Sequence[str]) -> tuple[str, str]:
    """The column and the text of the first problem in a line; the column is empty if the whole line is wrong, both are if nothing is."""
    try:
        values = _fields(line)
    except ValueError as error:
        return "", f"expected comma-separated integers, found {error}"
    if len(values) != len(names):
        return "", f"expected {len(names)} values, found {len(values) if line.strip() else 'a blank line'}"
    for name, value in zip(names, values, strict=True):
        limit = NUM_CLASSES - 1 if name == "label" else 255
        # int() refuses more than 4,300 digits with a message of its own.
        if not _INTEGER.fullmatch(value) or len(value) > 1000 or int(value) > limit:
            return name, f"expected an integer from 0 to {limit}, found {_shown(value)}"
    return "", ""


def row_error(path: Path, text: bytes, names: Sequence[str], first_row: int, reason: str) -> DataError:
    """The error about the first wrong row of a block of lines, or with the reason if no row looks wrong. Rows count from 1."""
    lines = text.split(b"\n")[:-1]
    for row, line in enumerate(lines, start=first_row):
        column, problem = _line_problem(line, names)
        if problem:
            where = f"row {row}, column {column}" if column else f"row {row}"
            return DataError(f"{path}: {where}: {problem} (line {row + 1} of the file). {_ADVICE}")
    return DataError(f"{path}: rows {first_row} to {first_row + len(lines) - 1}: expected integers ({reason}). {_ADVICE}")


def parse_header(path: Path, header: bytes, labelled: bool) -> list[str]:
    """Return the columns in the file's order: `label` if labelled, and `pixel0` to `pixel783`, each once.

    Raises:
        DataError: if the header, the first line without its line end, is anything else.
    """
    wanted = "label,pixel0,...,pixel783" if labelled else "pixel0,...,pixel783"
    if kind := _not_text(header):
        raise DataError(f"{path}: expected a CSV with the columns {wanted}, found {kind}")
    try:
        names = [name.strip(" \t") for name in _fields(header)]
    except ValueError as error:
        raise DataError(f"{path}: expected the header {wanted}, found {error}") from error
    if problem := _header_problem(names, labelled):
        found = f"{len(names)} columns, the first {_shown(names[0]) if names else ''}"
        raise DataError(f"{path}: expected the columns {wanted}, found {found}: {problem}")
    return names


def _not_text(header: bytes) -> str:
    """What the file is if its first line shows that it is not a CSV, and what to do; else empty."""
    for start, kind in _BINARY_KINDS.items():
        if header.startswith(start):
            return kind
    if b"\r" in header:
        return "lines that end with only a carriage return: save it with line feeds"
    return "binary data" if b"\x00" in header else ""


def _header_problem(names: Sequence[str], labelled: bool) -> str:
    """What is wrong with the names of the columns and what to do; empty if nothing is."""
    # Dicts, because they are sets that keep the order.
    wanted = dict.fromkeys(["label", *PIXEL_NAMES] if labelled else PIXEL_NAMES)
    counts = Counter(names)
    missing = [name for name in wanted if name not in counts]
    extra = [name for name in counts if name not in wanted]
    repeated = [name for name, count in counts.items() if count > 1]
    if names and all(map(_INTEGER.fullmatch, names)):
        return "there is no header line. Insert it as the first line"
    if missing == ["label"] and not extra:
        return "there are no labels, so this looks like test.csv; train.csv must hold the labelled digits"
    if extra == ["label"] and not missing:
        return "there is a label, so this looks like train.csv; test.csv must hold the digits without labels"
    problems = [f"{_few(some)} {what}" for some, what in ((missing, "missing"), (extra, "not expected"), (repeated, "repeated")) if some]
    return "; ".join(problems) + ". Download the file again, or fix its header" if problems else ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(_shown(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
