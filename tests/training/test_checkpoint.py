"""Checkpoints: written in turn, checked, and never trusted when damaged."""

import errno
import os
import pickle

import pytest
import torch

from digit_search.errors import StorageError
from digit_search.run.checkpoints import LocalCheckpoints
from digit_search.run.layout import checkpoint_files, delete_checkpoints
from digit_search.training.checkpoint import _ChecksumWriter, load_checkpoint, save_checkpoint


def save(folder, step):
    save_checkpoint(LocalCheckpoints(folder), step, {"reports": step, "weights": torch.full((50,), float(step))})


def test_the_newest_is_loaded_and_two_are_kept(tmp_path):
    assert load_checkpoint(LocalCheckpoints(tmp_path / "trial")) is None
    for step in (1, 2, 3):
        save(tmp_path / "trial", step)
    assert load_checkpoint(LocalCheckpoints(tmp_path / "trial"))["reports"] == 3
    assert len(list((tmp_path / "trial").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-20], lambda content: b"", lambda content: content[:200] + b"x" + content[201:]]
)
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, damage, caplog):
    for step in (1, 2):
        save(tmp_path, step)
    newest = checkpoint_files(tmp_path)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    assert load_checkpoint(LocalCheckpoints(tmp_path))["reports"] == 1
    assert "checksum does not fit" in caplog.text


def test_a_pickle_in_its_place_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    checkpoint_files(tmp_path)[0].write_bytes(pickle.dumps(Evil()))
    assert load_checkpoint(LocalCheckpoints(tmp_path)) is None


@pytest.mark.parametrize("num_bytes", [0, 300, 5000, 100_000])
def test_a_full_disk_says_so_and_keeps_the_checkpoints_before(tmp_path, monkeypatch, num_bytes):
    for step in (1, 2):
        save(tmp_path, step)
    left = [num_bytes]

    def write(self, data):
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)

    monkeypatch.setattr(_ChecksumWriter, "write", write)
    with pytest.raises(StorageError, match="No space left on device"):
        save_checkpoint(LocalCheckpoints(tmp_path), 3, {"reports": 3, "weights": torch.zeros(50_000), "more": torch.zeros(50_000)})
    assert load_checkpoint(LocalCheckpoints(tmp_path))["reports"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_a_ctrl_c_while_one_is_written_is_no_error_of_torch(tmp_path, monkeypatch):
    def write(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(_ChecksumWriter, "write", write)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_worker_left_of_one_is_deleted(tmp_path):
    half = tmp_path / ".checkpoint_1.pt.12345.tmp"
    half.write_bytes(b"half of it")
    save(tmp_path, 1)
    assert not half.exists()
    half.write_bytes(b"half of it")
    delete_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_checkpoint_says_so(tmp_path):
    (tmp_path / "trial").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        save(tmp_path / "trial", 1)
