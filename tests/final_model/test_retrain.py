"""From which checkpoint a final training continues."""

import pytest

from digit_search.config.loading import load_settings
from digit_search.final_model.retrain import _usable_checkpoint
from digit_search.records import TrialParams, TrialRecord, TrialStatus
from digit_search.run.active_run import ActiveRun
from digit_search.run.checkpoints import LocalCheckpoints
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.training.checkpoint import save_checkpoint


@pytest.fixture
def run(tmp_path):
    return ActiveRun(load_settings(None, ["retrain.max_epochs=5"]), RunFolder(tmp_path), print, Interrupts())


def save(folder, reports, **state):
    save_checkpoint(LocalCheckpoints(folder), reports, {"reports": reports, **state})


def usable(run, trial, device="cpu"):
    state = _usable_checkpoint(run, TrialRecord(trial, TrialStatus.COMPLETED, TrialParams(), 0, device=device))
    return state and state["reports"]


def test_an_interrupted_retraining_comes_before_the_trials_own_checkpoint(run):
    assert usable(run, 3) is None
    save(run.folder.trial(3), 2)
    assert usable(run, 3) == 2
    assert usable(run, 3, device="cuda") is None
    save(run.folder.retraining, 4, trial=3)
    assert usable(run, 3) == 4


def test_the_interrupted_retraining_of_another_trial_is_deleted(run):
    """`retrain --trial 3` of an interrupted run may be interrupted too, before that run is resumed and another trial wins."""
    save(run.folder.retraining, 4, trial=3)
    assert usable(run, 5) is None
    assert usable(run, 3) is None


def test_a_checkpoint_beyond_the_last_epoch_is_not_used(run):
    save(run.folder.retraining, 6, trial=3)
    assert usable(run, 3) is None
