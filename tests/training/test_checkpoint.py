"""Two checkpoints are written alternately; a damaged one is ignored."""

import errno
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from digit_search.errors import StorageError, TrialError
from digit_search.records import EpochMetrics, TrialParams
from digit_search.run.checkpoints import LocalCheckpoints
from digit_search.run.layout import checkpoint_files, delete_checkpoints
from digit_search.training.batches import place_digits
from digit_search.training.checkpoint import _ChecksumWriter, checkpoint_state, load_checkpoint, restore, save_checkpoint
from digit_search.training.device import plan_device
from digit_search.training.loop import BestEpoch
from digit_search.training.setup import TrainingSetup
from digit_search.training.trainer import Trainer


def save(folder, step):
    save_checkpoint(LocalCheckpoints(folder), step, {"reports": step, "weights": torch.full((50,), float(step))})


def test_the_newest_checkpoint_is_loaded_and_two_are_kept(tmp_path):
    assert load_checkpoint(LocalCheckpoints(tmp_path / "trial")) is None
    for step in (1, 2, 3):
        save(tmp_path / "trial", step)
    assert load_checkpoint(LocalCheckpoints(tmp_path / "trial"))["reports"] == 3
    assert len(list((tmp_path / "trial").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-20], lambda content: b"", lambda content: content[:200] + b"x" + content[201:]]
)
def test_a_damaged_checkpoint_is_ignored_and_the_one_before_is_used(tmp_path, damage, caplog):
    for step in (1, 2):
        save(tmp_path, step)
    newest = checkpoint_files(tmp_path)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    assert load_checkpoint(LocalCheckpoints(tmp_path))["reports"] == 1
    assert "checksum does not fit" in caplog.text


def test_a_pickle_instead_of_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    checkpoint_files(tmp_path)[0].write_bytes(pickle.dumps(Evil()))
    assert load_checkpoint(LocalCheckpoints(tmp_path)) is None


@pytest.mark.parametrize("num_bytes", [0, 300, 5000, 100_000])
def test_a_full_disk_is_named_and_the_earlier_checkpoints_are_kept(tmp_path, monkeypatch, num_bytes):
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


def test_ctrl_c_while_a_checkpoint_is_written_stays_a_keyboard_interrupt(tmp_path, monkeypatch):
    def write(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(_ChecksumWriter, "write", write)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_of_a_killed_worker_is_deleted(tmp_path):
    half = tmp_path / ".checkpoint_1.pt.12345.tmp"
    half.write_bytes(b"half of it")
    save(tmp_path, 1)
    assert not half.exists()
    half.write_bytes(b"half of it")
    delete_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "trial").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        save(tmp_path / "trial", 1)


PARAMS = TrialParams(lr=0.001, batch_size=8)


@pytest.fixture
def setup() -> TrainingSetup:
    """10 digits. Few, because processors without float16 units take seconds for a batch."""
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 784), dtype=np.uint8)
    digits = place_digits(pixels, (np.arange(10) % 10).astype(np.uint8), plan_device("cpu"))
    return TrainingSetup(digits, torch.arange(8), torch.arange(8, 10), plan_device("cpu"))


@pytest.mark.parametrize(("before", "after"), [("float32", "float16"), ("float16", "float32"), ("float16", "float16")])
@pytest.mark.slow
def test_a_training_resumes_in_another_precision(setup, before, after):
    first = Trainer(replace(setup, plan=plan_device("cpu", before)), PARAMS, 1)
    first.advance()
    best = BestEpoch(EpochMetrics(1, 0.5, 0.8, 0.5, 0.8, 0.001, 8, 1.0), first.final_weights())
    second = Trainer(replace(setup, plan=plan_device("cpu", after)), PARAMS, 1)
    metrics, restored = restore(second, checkpoint_state(first, best.metrics, best))
    assert (metrics, second.epoch) == (best.metrics, 1)
    assert all(torch.equal(value, restored.weights[name]) for name, value in best.weights.items())
    assert second.advance().epoch == 2


def test_best_weights_of_an_earlier_epoch_are_kept_in_the_checkpoint(setup):
    first = Trainer(setup, PARAMS, 1)
    best = BestEpoch(first.advance(), first.final_weights())
    state = checkpoint_state(first, first.advance(), best)
    _, restored = restore(Trainer(setup, PARAMS, 1), state)
    assert restored.metrics == best.metrics
    assert all(torch.equal(value, restored.weights[name]) for name, value in best.weights.items())


@pytest.mark.parametrize("state", [{}, {"trainer": {}}, {"trainer": {"reports": "many"}}])
def test_the_state_of_another_training_is_refused(setup, state):
    with pytest.raises(TrialError, match="the checkpoint does not belong to this training"):
        restore(Trainer(setup, PARAMS, 1), state)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")])
def test_running_out_of_memory_while_restoring_stays_that_error(setup, monkeypatch, error):
    def load(self, state):
        raise error

    monkeypatch.setattr(Trainer, "load_state_dict", load)
    with pytest.raises(type(error), match="out of memory"):
        restore(Trainer(setup, PARAMS, 1), {"trainer": {}})
