"""All the digits of a run, found, read and checked before anything else starts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from digit_search.data.cache import read_cached, resolve_cache_dir
from digit_search.data.reader import DEFAULT_MAX_CSV_BYTES, read_answers
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
    """`pixels` alone."""
    answers: np.ndarray | None
    """Labels of the test digits, uint8 [rows]; None where nobody knows them. Never learned from."""
    train_fingerprint: str
    test_fingerprint: str


def load_digits(dir: str, *, cache_dir: str = "auto", max_csv_bytes: int = DEFAULT_MAX_CSV_BYTES) -> Digits:
    """Find and read train.csv, test.csv and, where they lie beside it, the answers.

    Args:
        dir: as `find_digits` takes it.
        cache_dir: as `resolve_cache_dir` takes it.

    Raises:
        DataError: if a file is missing or not what it should be.
    """
    source = find_digits(dir)
    cache = resolve_cache_dir(cache_dir)
    train, train_fingerprint = read_cached(source.train, labelled=True, cache_dir=cache, max_csv_bytes=max_csv_bytes)
    test, test_fingerprint = read_cached(source.test, labelled=False, cache_dir=cache, max_csv_bytes=max_csv_bytes)
    answers = _load_answers(source.answers, source.test.name, test.num_rows) if source.answers else None
    return Digits(source, train, test, answers, train_fingerprint, test_fingerprint)


def _load_answers(path: Path, test_name: str, num_rows: int) -> np.ndarray:
    is_absurd = path.is_file() and path.stat().st_size > LONGEST_ANSWER_BYTES * (num_rows + 1)
    answers = None if is_absurd else read_answers(path)
    if answers is None or len(answers) != num_rows:
        found = "many more" if answers is None else len(answers)
        raise DataError(
            f"{path}: expected a row for each of the {num_rows} rows of {test_name}, found {found}; mend it, or take the file away"
        )
    return answers
