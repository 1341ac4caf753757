"""A training's checkpoints in a store."""

import pytest
import torch

from digit_search.errors import StorageError
from digit_search.files.object_store import Remote
from digit_search.run.checkpoints import trial_checkpoints
from digit_search.training.checkpoint import load_checkpoint, save_checkpoint


def save(checkpoints, step):
    save_checkpoint(checkpoints, step, {"reports": step, "weights": torch.full((50,), float(step))})


@pytest.fixture
def place(store):
    return Remote(store.uri("run/tune"))


@pytest.fixture
def checkpoints(place):
    return trial_checkpoints(place.uri, 7)


def test_only_the_newest_checkpoint_is_read_and_two_are_kept(store, place, checkpoints):
    assert load_checkpoint(checkpoints) is None
    for step in (8, 9, 10):
        save(checkpoints, step)
    assert sorted(place.files()) == ["trial_0007/checkpoint_10.pt", "trial_0007/checkpoint_9.pt"]
    store.done.clear()
    assert load_checkpoint(checkpoints)["reports"] == 10
    assert store.done == ["list", "get bucket/run/tune/trial_0007/checkpoint_10.pt"]


def test_a_damaged_checkpoint_is_ignored_and_replaced_by_the_next_one(place, checkpoints, caplog):
    for step in (1, 2):
        save(checkpoints, step)
    place.put("trial_0007/checkpoint_2.pt", b"cut short")
    assert load_checkpoint(checkpoints)["reports"] == 1
    assert "checksum does not fit" in caplog.text
    place.put("trial_0007/checkpoint_1.pt", b"cut short")
    assert load_checkpoint(checkpoints) is None
    save(checkpoints, 1)
    assert list(place.files()) == ["trial_0007/checkpoint_1.pt"]


def test_earlier_checkpoints_are_kept_if_the_network_fails(store, checkpoints):
    save(checkpoints, 1)
    store.failures_left = 3
    with pytest.raises(StorageError, match=r"checkpoint_2\.pt: cannot be written"):
        save(checkpoints, 2)
    assert load_checkpoint(checkpoints)["reports"] == 1


def test_the_traceback_of_a_failed_trial_is_written_next_to_its_checkpoints(place, checkpoints):
    checkpoints.write_error("Traceback")
    assert place.get("trial_0007/error.log", 100) == b"Traceback"
