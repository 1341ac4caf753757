import shutil

import numpy as np
import pytest

from digit_search.data.load import load_digits
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.table import label_view, pixel_view
from digit_search.errors import DataError


def test_the_sample_is_loaded_whole_and_the_same_from_the_cache(tmp_path):
    first, second = (load_digits("sample", cache_dir=str(tmp_path)) for _ in range(2))
    assert first.source.embedded
    assert (first.train.num_rows, first.test.num_rows, len(first.answers)) == (4000, 1000, 1000)
    assert first.train.equals(second.train)
    assert first.test.equals(second.test)
    assert first.train_fingerprint == second.train_fingerprint != first.test_fingerprint


def test_a_folder_without_answers_is_loaded_without(tmp_path, write_digits, pixels, labels):
    write_digits()
    write_digits("test.csv.gz", labelled=False, rows=2)
    digits = load_digits(str(tmp_path), cache_dir="")
    assert digits.answers is None
    np.testing.assert_array_equal(label_view(digits.train), labels)
    np.testing.assert_array_equal(pixel_view(digits.test), pixels[:2])


def test_answers_to_other_digits_are_refused(tmp_path, write_digits):
    write_digits()
    write_digits("test.csv", labelled=False, rows=2)
    (tmp_path / "test_labels.csv").write_text("ImageId,Label\n1,0\n")
    with pytest.raises(DataError, match=r"test_labels\.csv: expected a row for each of the 2 rows of test\.csv, found 1"):
        load_digits(str(tmp_path), cache_dir="")


def test_absurdly_many_answers_are_refused_unread(tmp_path, write_digits):
    write_digits()
    write_digits("test.csv", labelled=False, rows=2)
    with (tmp_path / "test_labels.csv").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"test_labels\.csv: expected a row for each of the 2 rows of test\.csv, found many more"):
        load_digits(str(tmp_path), cache_dir="")


def test_swapped_files_are_refused(tmp_path):
    shutil.copy(SAMPLE_FOLDER / "train.csv.gz", tmp_path / "test.csv.gz")
    shutil.copy(SAMPLE_FOLDER / "test.csv.gz", tmp_path / "train.csv.gz")
    with pytest.raises(DataError, match=r"train\.csv\.gz: .*this looks like test\.csv"):
        load_digits(str(tmp_path), cache_dir="")
