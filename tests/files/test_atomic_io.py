"""A file that is written appears whole or not at all."""

import os

import pytest

from digit_search.errors import StorageError
from digit_search.files.atomic_io import atomic_file, delete_temporary_files, write_atomically


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_temporary_file(tmp_path):
    path = tmp_path / "trials.csv"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, None)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder: cannot be written"):
        write_atomically(tmp_path / "folder", "new")
    assert path.read_text() == "old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder", "trials.csv"]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "trials.csv"
    write_atomically(path, "old")
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_link_is_replaced_and_never_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "report.html").symlink_to(precious)
    (tmp_path / f".report.html.{os.getpid()}.tmp").symlink_to(precious)
    write_atomically(tmp_path / "report.html", "new")
    assert (precious.read_text(), (tmp_path / "report.html").read_text()) == ("keep", "new")
    assert not (tmp_path / "report.html").is_symlink()


def test_only_temporary_files_of_killed_processes_are_deleted(tmp_path):
    for name in (".trials.csv.9.tmp", "notes.tmp", ".lock"):
        (tmp_path / name).write_text("")
    delete_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "notes.tmp"]
