import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.errors import DataError

counts_of_classes = st.lists(st.integers(2, 60), min_size=2, max_size=10)
fractions = st.floats(0.001, 0.999)
seeds = st.integers(0, 2**31 - 1)


def rows_of(counts: list[int]) -> np.ndarray:
    """Labels in a fixed disorder: so many rows of class 0, 1, ..."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.uint8)


@settings(deadline=None)
@given(counts=counts_of_classes, fraction=fractions, seed=seeds)
def test_every_row_is_in_exactly_one_part_in_ascending_order(counts, fraction, seed):
    labels = rows_of(counts)
    split = split_rows(labels, validation_fraction=fraction, seed=seed)
    assert sorted([*split.train, *split.validation]) == list(range(len(labels)))
    for rows in (split.train, split.validation):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert not rows.flags.writeable


@settings(deadline=None)
@given(counts=counts_of_classes, fraction=fractions, seed=seeds)
def test_each_class_is_split_in_proportion_with_a_row_in_both_parts(counts, fraction, seed):
    labels = rows_of(counts)
    split = split_rows(labels, validation_fraction=fraction, seed=seed)
    chosen = np.bincount(labels[split.validation], minlength=len(counts))
    assert (chosen >= 1).all()
    assert (chosen < counts).all()
    exact = np.array(counts) * fraction
    assert (np.abs(chosen - np.clip(exact, 1, np.array(counts) - 1)) < 1).all()


@settings(deadline=None)
@given(counts=st.lists(st.integers(20, 60), min_size=2, max_size=10), fraction=st.floats(0.05, 0.95), seed=seeds)
def test_the_validation_part_has_the_requested_size_if_no_class_is_rare(counts, fraction, seed):
    split = split_rows(rows_of(counts), validation_fraction=fraction, seed=seed)
    assert len(split.validation) == round(sum(counts) * fraction)


def test_a_tenth_of_the_sample_is_for_validation():
    labels = label_view(read_train(SAMPLE_FOLDER / "train.csv.gz"))
    split = split_rows(labels, validation_fraction=0.1, seed=0)
    assert (len(split.train), len(split.validation)) == (3600, 400)
    assert (np.abs(np.bincount(labels[split.validation]) - np.bincount(labels) * 0.1) < 1).all()


def test_a_seed_gives_the_same_rows_in_every_version():
    split = split_rows(np.tile(np.arange(3, dtype=np.uint8), 10), validation_fraction=0.2, seed=7)
    assert split.validation.tolist() == [4, 9, 10, 18, 20, 26]


def test_another_seed_gives_other_rows():
    splits = [split_rows(rows_of([50, 50]), validation_fraction=0.1, seed=seed).validation.tolist() for seed in range(20)]
    assert len({tuple(rows) for rows in splits}) == 20


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([], "expected at least two classes, found no rows"),
        ([4, 4, 4, 4], "expected at least two classes, found only the class 4"),
        ([4, 4, 7], "expected at least 2 rows of each class, .* found 1 of class 7"),
    ],
)
def test_digits_that_cannot_be_split_are_refused(labels, found):
    with pytest.raises(DataError, match=rf"some\.csv: column label: {found}"):
        split_rows(np.array(labels, np.uint8), validation_fraction=0.1, seed=0, file="some.csv")


def test_two_rows_of_a_class_are_enough():
    split = split_rows(np.array([1, 1, 2, 2], np.uint8), validation_fraction=0.001, seed=0)
    assert (len(split.train), len(split.validation)) == (2, 2)
