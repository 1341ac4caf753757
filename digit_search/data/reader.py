"""From CSV files to validated Arrow tables."""

import re
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from digit_search.data.decode import decode_csv, decode_plain
from digit_search.data.diagnose import parse_header, row_error
from digit_search.data.lines import line_blocks
from digit_search.data.table import NUM_CLASSES, PIXEL_NAMES, build_table
from digit_search.errors import DataError

DEFAULT_MAX_CSV_BYTES = 1 << 30
_ANSWER = re.compile(r'("?)([0-9]{1,9})\1,("?)([0-9])\3')


def read_train(path: Path, *, max_csv_bytes: int = DEFAULT_MAX_CSV_BYTES) -> pa.Table:
    """Read labelled digits: `label` uint8 0-9 and `pixels` fixed_size_list<uint8>[784], in the file's order, one chunk.

    Raises:
        DataError: if the file has another content, naming the file, the row and the column.
    """
    return _read(path, max_csv_bytes, labelled=True)


def read_test(path: Path, *, max_csv_bytes: int = DEFAULT_MAX_CSV_BYTES) -> pa.Table:
    """Read digits without labels; otherwise as `read_train`."""
    return _read(path, max_csv_bytes, labelled=False)


def _read(path: Path, max_csv_bytes: int, labelled: bool) -> pa.Table:
    blocks: list[np.ndarray] = []
    num_rows = 0
    with closing(line_blocks(path, max_csv_bytes)) as texts:
        header, _, rest = next(texts, b"").partition(b"\n")
        if not header:
            raise DataError(f"{path}: expected a CSV with a header line, found an empty file or a blank line; download it again")
        names = parse_header(path, header.removesuffix(b"\r"), labelled)
        for text in chain([rest] if rest else [], texts):
            blocks.append(_decode(path, text, names, num_rows + 1))
            num_rows += len(blocks[-1])
    if num_rows == 0:
        raise DataError(f"{path}: expected a row for every digit, found a header only; download it again")
    labels = _join(blocks, names.index("label")) if labelled else None
    return build_table(labels, _join(blocks, _pixel_columns(names)))


def _decode(path: Path, text: bytes, names: Sequence[str], first_row: int) -> np.ndarray:
    """Decode a block of lines to uint8 [rows, columns], and check the labels."""
    # Searching for one byte is ten times as fast as replacing two.
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    cells = decode_plain(text, len(names))
    if cells is None:
        try:
            cells = decode_csv(text, names)
        except pa.ArrowInvalid as error:
            raise row_error(path, text, names, first_row, str(error)) from error
    if "label" in names and cells[:, names.index("label")].max() >= NUM_CLASSES:
        raise row_error(path, text, names, first_row, "a label above 9")
    return cells


def _pixel_columns(names: Sequence[str]) -> slice | list[int]:
    """The file's columns of pixel0, pixel1, ...; as a slice if they are in this order, because that is faster."""
    places = {name: place for place, name in enumerate(names)}
    columns = [places[name] for name in PIXEL_NAMES]
    first, last = columns[0], columns[-1]
    return slice(first, last + 1) if columns == list(range(first, last + 1)) else columns


def _join(blocks: Sequence[np.ndarray], columns: int | slice | list[int]) -> pa.Buffer:
    """One or more columns of all blocks in one contiguous buffer, row by row."""
    # Indexing with a list of columns gives arrays in column-major order.
    return pa.py_buffer(np.ascontiguousarray(np.concatenate([block[:, columns] for block in blocks])))


def read_answers(path: Path) -> np.ndarray:
    """Read the labels of the test digits, `ImageId,Label`, as uint8 [rows] in the order of ImageId.

    Raises:
        DataError: if a line is not `ImageId,Label`, or the ids are not 1 to the number of rows, each once.
    """
    lines = b"".join(line_blocks(path, DEFAULT_MAX_CSV_BYTES)).decode("utf-8", "replace").splitlines()
    if not lines or lines[0].split(",") != ["ImageId", "Label"]:
        raise DataError(f"{path}: expected the header ImageId,Label, found {lines[0][:40] if lines else ''!r}; fix or remove the file")
    answers: dict[int, int] = {}
    for row, line in enumerate(lines[1:], start=1):
        match = _ANSWER.fullmatch(line)
        if match is None:
            raise DataError(f"{path}: row {row}: expected an ImageId and a Label from 0 to 9, found {line[:40]!r}; fix or remove the file")
        answers[int(match[2])] = int(match[4])
    if not answers or sorted(answers) != list(range(1, len(lines))):
        raise DataError(f"{path}: expected the ImageIds 1 to {len(lines) - 1}, each once, found others; fix or remove the file")
    return np.array([answers[image_id] for image_id in sorted(answers)], np.uint8)
