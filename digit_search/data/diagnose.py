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


def _shown(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _fields(line: bytes) -> list[str]:
    """The cells of a line.

    Raises:
        csv.Error: if quotes or a carriage return are misplaced.
    """
    return next(csv.reader([line.decode("utf-8", "replace")], strict=True), [])


def _cell_problem(name: str, value: str) -> str:
    """What is wrong with a cell; empty if nothing is."""
    limit = NUM_CLASSES - 1 if name == "label" else 255
    # int() refuses more than 4,300 digits with a message of its own.
    if _INTEGER.fullmatch(value) and len(value) < 1000 and int(value) <= limit:
        return ""
    return f"expected an integer from 0 to {limit}, found {_shown(value)}"


def _line_problem(line: bytes, names: Sequence[str]) -> tuple[str, str]:
    """The column and the text of the first problem in a line; the column is empty if the whole line is wrong, both are if nothing is."""
    try:
        values = _fields(line)
    except csv.Error as error:
        return "", f"expected comma-separated integers, found {_shown(line.decode('utf-8', 'backslashreplace'))} ({error})"
    if len(values) != len(names):
        return "", f"expected {len(names)} values, found {len(values) if line.strip() else 'a blank line'}"
    for name, value in zip(names, values, strict=True):
        if problem := _cell_problem(name, value):
            return name, problem
    return "", ""


def row_error(path: Path, text: bytes, names: Sequence[str], first_row: int, reason: str) -> DataError:
    """The error about the first wrong row of a block.

    Args:
        text: the block's lines.
        names: the columns in the file's order.
        first_row: number of the block's first row, counted from 1 after the header.
        reason: added if no row looks wrong.
    """
    lines = text.split(b"\n")[:-1]
    for row, line in enumerate(lines, start=first_row):
        column, problem = _line_problem(line, names)
        if problem:
            where = f"row {row}, column {column}" if column else f"row {row}"
            return DataError(f"{path}: {where}: {problem} (line {row + 1} of the file). {_ADVICE}")
    return DataError(f"{path}: rows {first_row} to {first_row + len(lines) - 1}: expected integers ({reason}). {_ADVICE}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(_shown(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _not_text(header: bytes) -> str:
    """What the file is if its first line shows that it is not a CSV, and what to do; else empty."""
    kinds = {
        b"\x1f\x8b": "gzip: give its name the ending .csv.gz",
        b"PK\x03\x04": "a zip archive: unpack it first",
        b"\xff\xfe": "UTF-16 text: save it as UTF-8",
        b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    }
    for magic, kind in kinds.items():
        if header.startswith(magic):
            return kind
    if b"\r" in header:
        return "lines that end with only a carriage return: save it with line feeds"
    return "binary data" if b"\x00" in header else ""


def parse_header(path: Path, header: bytes, labelled: bool) -> list[str]:
    """Return the columns in the file's order: `label` if labelled, and `pixel0` to `pixel783`, each once.

    Args:
        header: the first line without its line end.

    Raises:
        DataError: if the header is anything else.
    """
    expected = ["label", *PIXEL_NAMES] if labelled else list(PIXEL_NAMES)
    wanted = "label,pixel0,...,pixel783" if labelled else "pixel0,...,pixel783"
    if kind := _not_text(header):
        raise DataError(f"{path}: expected a CSV with the columns {wanted}, found {kind}")
    try:
        names = [name.strip(" \t") for name in _fields(header)]
    except csv.Error as error:
        raise DataError(
            f"{path}: expected the header {wanted}, found {_shown(header.decode('utf-8', 'backslashreplace'))} ({error})"
        ) from error
    if problem := _header_problem(names, expected, labelled):
        raise DataError(
            f"{path}: expected the columns {wanted}, found {len(names)} columns, the first {_shown(names[0]) if names else ''}: {problem}"
        )
    return names


def _header_problem(names: Sequence[str], expected: Sequence[str], labelled: bool) -> str:
    """What is wrong with the names of the columns and what to do; empty if nothing is."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    wanted, found = set(expected), set(names)
    missing = [name for name in expected if name not in found]
    extra = [name for name in dict.fromkeys(names) if name not in wanted]
    if names and all(_INTEGER.fullmatch(name) for name in names):
        return "there is no header line. Insert it as the first line"
    if missing == ["label"] and not extra:
        return "there are no labels, so this looks like test.csv; train.csv must hold the labelled digits"
    if extra == ["label"] and not missing and not labelled:
        return "there is a label, so this looks like train.csv; test.csv must hold the digits without labels"
    problems = [f"{_few(some)} {what}" for some, what in ((missing, "missing"), (extra, "not expected"), (repeated, "repeated")) if some]
    return "; ".join(problems) + ". Download the file again, or fix its header" if problems else ""
