"""All the digits of a run: found, read and checked before anything else starts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from digit_search.data.reader import read_answers, read_test, read_train
from digit_search.data.source import DigitSource, find_digits
from digit_search.errors import DataError

LONGEST_ANSWER_BYTES = 32
"""A row of test_labels.csv: nine digits, one digit, quotes and the end of the line."""


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """Labelled digits to learn from, digits to predict, and where they came from."""

    source: DigitSource
    train: pa.Table
    """`label` uint8 and `pixels` fixed_size_list<uint8>[784], one chunk."""
    test: pa.Table
    """`pixels` only."""
    answers: np.ndarray | None
    """Labels of the test digits, uint8 [rows]; None where they are not known. Never learned from."""
    train_fingerprint: str
    """SHA-256 of the file's bytes, 64 hexadecimal digits."""
    test_fingerprint: str


def load_digits(dir: str, *, max_csv_bytes: int) -> Digits:
    """Find and read train.csv, test.csv and, if it is beside them, test_labels.csv. `dir` is as for `find_digits`.

    Raises:
        DataError: if a file is missing or not what it should be.
    """
    source = find_digits(dir)
    train, train_fingerprint = _read_unchanged(read_train, source.train, max_csv_bytes)
    test, test_fingerprint = _read_unchanged(read_test, source.test, max_csv_bytes)
    answers = _load_answers(source.answers, source.test.name, test.num_rows) if source.answers else None
    return Digits(source, train, test, answers, train_fingerprint, test_fingerprint)


def _read_unchanged(read: Callable[..., pa.Table], path: Path, max_csv_bytes: int) -> tuple[pa.Table, str]:
    """Read a CSV and its fingerprint, both of the same content."""
    try:
        before = _stamp(path)
        # Read first: the reader refuses pipes and files above the limit, which hashing would wait for.
        table = read(path, max_csv_bytes=max_csv_bytes)
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        after = _stamp(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; fix its permissions or choose another folder") from error
    if after != before:
        raise DataError(f"{path}: the file changed while it was read; try again when it is complete")
    return table, fingerprint


def _stamp(path: Path) -> tuple[int, ...]:
    """Numbers of which at least one changes when the file is written or replaced. The modification time can be set back."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _load_answers(path: Path, test_name: str, num_rows: int) -> np.ndarray:
    is_absurd = path.is_file() and path.stat().st_size > LONGEST_ANSWER_BYTES * (num_rows + 1)
    answers = None if is_absurd else read_answers(path)
    if answers is None or len(answers) != num_rows:
        found = "many more" if answers is None else len(answers)
        raise DataError(f"{path}: expected a row for each of the {num_rows} rows of {test_name}, found {found}; fix or remove the file")
    return answers
