import hashlib
import os
import shutil

import numpy as np
import pytest

from digit_search.data import load
from digit_search.data.load import load_digits
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.table import label_view, pixel_view
from digit_search.errors import DataError

MAX_CSV_BYTES = 1 << 26


def test_the_sample_is_loaded_with_the_fingerprints_of_its_files():
    digits = load_digits("sample", max_csv_bytes=MAX_CSV_BYTES)
    assert digits.source.embedded
    assert (digits.train.num_rows, digits.test.num_rows, len(digits.answers)) == (4000, 1000, 1000)
    assert digits.train_fingerprint == hashlib.sha256((SAMPLE_FOLDER / "train.csv.gz").read_bytes()).hexdigest()
    assert digits.test_fingerprint == hashlib.sha256((SAMPLE_FOLDER / "test.csv.gz").read_bytes()).hexdigest()


def test_a_folder_without_answers_is_loaded_without(tmp_path, write_digits, pixels, labels):
    write_digits()
    write_digits("test.csv.gz", labelled=False, rows=2)
    digits = load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)
    assert digits.answers is None
    np.testing.assert_array_equal(label_view(digits.train), labels)
    np.testing.assert_array_equal(pixel_view(digits.test), pixels[:2])


def test_nothing_is_written_while_digits_are_loaded(tmp_path, write_digits, monkeypatch):
    write_digits()
    write_digits("test.csv", labelled=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv", "test.csv"}


def test_the_limit_holds_for_both_files(tmp_path, write_digits):
    limit = len(write_digits("test.csv", labelled=False).read_bytes())
    write_digits()
    with pytest.raises(DataError, match=rf"train\.csv: expected at most {limit} bytes"):
        load_digits(str(tmp_path), max_csv_bytes=limit)
    write_digits(rows=1)
    assert load_digits(str(tmp_path), max_csv_bytes=limit).test.num_rows == 6
    with pytest.raises(DataError, match=rf"test\.csv: expected at most {limit - 1} bytes"):
        load_digits(str(tmp_path), max_csv_bytes=limit - 1)


def test_answers_to_other_digits_are_refused(tmp_path, write_digits):
    write_digits()
    write_digits("test.csv", labelled=False, rows=2)
    (tmp_path / "test_labels.csv").write_text("ImageId,Label\n1,0\n")
    with pytest.raises(DataError, match=r"test_labels\.csv: expected a row for each of the 2 rows of test\.csv, found 1"):
        load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)


def test_absurdly_many_answers_are_refused_unread(tmp_path, write_digits):
    write_digits()
    write_digits("test.csv", labelled=False, rows=2)
    with (tmp_path / "test_labels.csv").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"test_labels\.csv: expected a row for each of the 2 rows of test\.csv, found many more"):
        load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)


def test_swapped_files_are_refused(tmp_path):
    shutil.copy(SAMPLE_FOLDER / "train.csv.gz", tmp_path / "test.csv.gz")
    shutil.copy(SAMPLE_FOLDER / "test.csv.gz", tmp_path / "train.csv.gz")
    with pytest.raises(DataError, match=r"train\.csv\.gz: .*this looks like test\.csv"):
        load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, write_digits):
    write_digits("test.csv", labelled=False)
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv: expected a CSV file, found something else"):
        load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)


def test_a_csv_that_is_replaced_while_it_is_read_is_refused(tmp_path, write_digits, monkeypatch):
    csv = write_digits()
    write_digits("test.csv", labelled=False)
    times = csv.stat()

    def read_while_replaced(path, **options):
        table = read_train(path, **options)
        other = tmp_path / "other.csv"
        other.write_bytes(path.read_bytes().replace(b"\n3,", b"\n4,", 1))
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert other.stat().st_size == times.st_size
        other.replace(path)
        return table

    monkeypatch.setattr(load, "read_train", read_while_replaced)
    with pytest.raises(DataError, match=r"train\.csv: the file changed while it was read"):
        load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)


def test_a_csv_that_disappears_while_it_is_read_is_refused(tmp_path, write_digits, monkeypatch):
    write_digits()
    write_digits("test.csv", labelled=False)
    monkeypatch.setattr(load, "read_train", lambda path, **options: path.unlink())
    with pytest.raises(DataError, match=r"train\.csv: cannot be read: No such file"):
        load_digits(str(tmp_path), max_csv_bytes=MAX_CSV_BYTES)
