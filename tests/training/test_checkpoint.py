"""Checkpoints: written in turn, checked, and never trusted when damaged."""

import pickle

import pytest
import torch

from digit_search.run_folder import checkpoint_files
from digit_search.training.checkpoint import load_checkpoint, save_checkpoint


def save(folder, step):
    save_checkpoint(folder, step, {"reports": step, "weights": torch.full((50,), float(step))})


def test_the_newest_is_loaded_and_two_are_kept(tmp_path):
    assert load_checkpoint(tmp_path / "trial") is None
    for step in (1, 2, 3):
        save(tmp_path / "trial", step)
    assert load_checkpoint(tmp_path / "trial")["reports"] == 3
    assert len(list((tmp_path / "trial").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-20], lambda content: b"", lambda content: content[:200] + b"x" + content[201:]]
)
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, damage, caplog):
    for step in (1, 2):
        save(tmp_path, step)
    newest = checkpoint_files(tmp_path)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    assert load_checkpoint(tmp_path)["reports"] == 1
    assert "checksum does not fit" in caplog.text


def test_a_pickle_in_its_place_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    checkpoint_files(tmp_path)[0].write_bytes(pickle.dumps(Evil()))
    assert load_checkpoint(tmp_path) is None
