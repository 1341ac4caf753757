"""Which rows are for training and which for validation: row numbers, stratified by class and seeded."""

from dataclasses import dataclass

import numpy as np

from digit_search.data.table import NUM_CLASSES
from digit_search.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class RowSplit:
    """Row numbers from 0, int64, ascending, read-only; together every row once."""

    train: np.ndarray
    validation: np.ndarray


def _validation_counts(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many rows of each class, which has at least 2, are for validation: in proportion, at least one, not all.

    Their sum is the rounded fraction of all rows, unless these limits prevent it.
    """
    exact = counts * fraction
    chosen = np.clip(np.floor(exact), 1, counts - 1).astype(np.int64)
    # The largest remainders are rounded up; ties go to the lower class.
    for index in np.argsort(chosen - exact, kind="stable"):
        if chosen.sum() >= round(counts.sum() * fraction):
            break
        chosen[index] += chosen[index] < counts[index] - 1
    return chosen


def _check_classes(counts: np.ndarray, file: str) -> None:
    present = np.flatnonzero(counts)
    if len(present) < 2:
        found = f"only the class {present[0]}" if len(present) else "no rows"
        raise DataError(f"{file}: column label: expected at least two classes, found {found}; there is nothing to learn")
    rare = present[counts[present] < 2]
    if len(rare):
        raise DataError(
            f"{file}: column label: expected at least 2 rows of each class, one to train and one to validate, "
            f"found 1 of class {rare[0]}; add digits of this class or remove the row"
        )


def split_rows(labels: np.ndarray, *, validation_fraction: float, seed: int, file: str = "train.csv") -> RowSplit:
    """Split the rows of each class in proportion, with at least one row in both parts.

    The same labels, fraction and seed give the same split on every machine. Each class has its own random stream from (seed, class).

    Args:
        labels: uint8 [rows], 0-9.
        validation_fraction: above 0 and below 1.
        file: named in errors.

    Raises:
        DataError: if there are fewer than two classes, or a class has a single row.
    """
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    _check_classes(counts, file)
    present = np.flatnonzero(counts)
    is_validation = np.zeros(len(labels), bool)
    for label, num_validation in zip(present, _validation_counts(counts[present], validation_fraction), strict=True):
        rows = np.flatnonzero(labels == label)
        # NumPy guarantees that the raw stream of a bit generator is the same in every version; permutation() has no such guarantee.
        keys = np.random.PCG64([seed, int(label)]).random_raw(len(rows))
        is_validation[rows[np.argsort(keys, kind="stable")[:num_validation]]] = True
    split = RowSplit(np.flatnonzero(~is_validation), np.flatnonzero(is_validation))
    split.train.flags.writeable = split.validation.flags.writeable = False
    return split
