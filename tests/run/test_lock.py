"""Only one process at a time works on a run."""

import signal
import subprocess
import sys

import pytest

from digit_search.errors import RunFolderError
from digit_search.run.lock import locked_folder

HOLD = """
import sys
from pathlib import Path
from digit_search.run.lock import locked_folder

with locked_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_without_waiting(tmp_path, holder):
    with pytest.raises(RunFolderError, match=f"{tmp_path}: another process works on this run; wait for it to end"), locked_folder(tmp_path):
        pass
    holder.communicate("")
    with locked_folder(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked_folder(tmp_path):
        raise KeyError
    with locked_folder(tmp_path), pytest.raises(RunFolderError, match="another process"), locked_folder(tmp_path):
        pass


def test_a_lock_file_of_an_earlier_version_is_used_and_kept(tmp_path):
    (tmp_path / ".lock").write_text("")
    with locked_folder(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == ""


def test_a_lock_file_that_was_deleted_between_opening_and_locking_is_no_lock(tmp_path, monkeypatch):
    def lock_and_delete(descriptor, *, blocking):
        (tmp_path / ".lock").unlink()
        return True

    monkeypatch.setattr("filelock.lock_descriptor", lock_and_delete)
    with pytest.raises(RunFolderError, match="another process works on this run"), locked_folder(tmp_path):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"\.lock: cannot be written"), locked_folder(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_without_locks_is_one_clear_error(tmp_path, monkeypatch):
    def unsupported(descriptor, *, blocking):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("filelock.lock_descriptor", unsupported)
    with (
        pytest.raises(RunFolderError, match=r"\.lock: cannot be locked: Function not implemented\. Choose a --results folder"),
        locked_folder(tmp_path),
    ):
        pass
