import logging

import pytest

from digit_search.data.source import SAMPLE_FOLDER, find_digits
from digit_search.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder without digits, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")


def test_without_a_folder_of_digits_the_embedded_sample_is_used(folder):
    source = find_digits("auto")
    assert source.embedded
    assert (source.train, source.test, source.answers) == tuple(
        SAMPLE_FOLDER / name for name in ("train.csv.gz", "test.csv.gz", "test_labels.csv")
    )


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
def test_the_default_folder_is_used_if_it_holds_digits(folder, name):
    put(folder / "data/digit-recognizer", name, "test.csv")
    source = find_digits("auto")
    assert not source.embedded
    assert source.train.resolve() == folder / "data/digit-recognizer" / name
    assert source.answers is None


def test_a_default_folder_without_digits_is_ignored(folder):
    put(folder / "data/digit-recognizer", "readme.txt")
    assert find_digits("auto").embedded


def test_the_sample_can_be_chosen(folder):
    put(folder / "data/digit-recognizer", "train.csv", "test.csv")
    assert find_digits("sample").embedded


def test_a_folder_may_hold_packed_and_plain_files_and_answers(folder):
    put(folder / "mine", "train.csv.gz", "test.csv", "test_labels.csv")
    source = find_digits(str(folder / "mine"))
    assert source.train.name == "train.csv.gz"
    assert source.test.name == "test.csv"
    assert source.answers == folder / "mine/test_labels.csv"
    assert not source.embedded


def test_a_plain_file_is_preferred_to_a_packed_one_with_a_warning(folder, caplog):
    put(folder, "train.csv", "train.csv.gz", "test.csv")
    with caplog.at_level(logging.WARNING):
        assert find_digits(".").train.name == "train.csv"
    assert "both train.csv and train.csv.gz; train.csv is read" in caplog.text


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "expected train.csv or train.csv.gz, found neither"),
        (["test.csv"], "expected train.csv or train.csv.gz, found neither"),
        (["train.csv"], "expected test.csv or test.csv.gz, found neither"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(folder, names, found):
    put(folder / "mine", *names)
    with pytest.raises(DataError, match=rf"mine: {found}; --data needs a folder"):
        find_digits(str(folder / "mine"))


def test_a_file_and_a_missing_folder_are_refused(folder):
    put(folder, "train.csv")
    for name, found in (("train.csv", "a file"), ("none", "nothing")):
        with pytest.raises(DataError, match=rf"{name}: expected a folder with train\.csv and test\.csv, found {found}"):
            find_digits(str(folder / name))


def test_the_home_folder_may_be_written_as_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    put(folder / "mine", "train.csv", "test.csv")
    assert find_digits("~/mine").folder == folder / "mine"
