"""`fit` stops early and keeps the best epoch."""

import itertools

import pytest
import torch

from digit_search.errors import TrialError
from digit_search.records import EpochMetrics
from digit_search.training.loop import fit, should_stop, should_stop_within


class FakeTrainer:
    """Reports given validation losses; its weights are the epoch's number."""

    def __init__(self, losses):
        self.losses, self.epoch = losses, 0
        self.model = self

    def advance(self):
        self.epoch += 1
        return EpochMetrics(self.epoch, 1.0, 0.5, self.losses[self.epoch - 1], 0.5, 0.01, 1, 0.0)

    def final_weights(self):
        return {"epoch": torch.tensor(self.epoch)}

    def load_state_dict(self, state):
        self.loaded = int(state["epoch"])


@pytest.mark.parametrize(
    ("losses", "patience", "stopped_after", "kept"),
    [
        ([3, 2, 1, 2, 2, 2], 3, 6, 3),
        ([3, 2, 1, 2, 2, 2], 2, 5, 3),
        ([1, 1, 1, 1], 2, 3, 1),
        ([3, 2, 1], 1, 3, 3),
        ([3, 2, 4, 1], None, 4, 4),
    ],
)
def test_training_stops_after_patience_epochs_without_improvement_and_restores_the_best(losses, patience, stopped_after, kept):
    trainer, reported = FakeTrainer(losses), []
    best = fit(trainer, max_epochs=len(losses), report=reported.append, patience=patience)
    assert len(reported) == stopped_after
    assert (trainer.loaded, best.metrics.epoch) == (kept, kept)


def test_training_ends_at_max_epochs():
    reported = []
    fit(FakeTrainer(list(itertools.repeat(1, 9))), max_epochs=4, report=reported.append)
    assert len(reported) == 4


def test_nothing_to_train_is_an_error():
    with pytest.raises(TrialError, match="expected at least one epoch to train, found max_epochs 0"):
        fit(FakeTrainer([]), max_epochs=0, report=pytest.fail)


def test_a_curve_should_stop_when_the_best_epoch_is_as_long_ago_as_the_patience():
    curve = [EpochMetrics(epoch, 1.0, 0.5, loss, 0.5, 0.01, 1, 0.0) for epoch, loss in enumerate((2.0, 1.0, 1.5, 1.5), start=1)]
    assert [should_stop(curve, patience) for patience in (1, 2, 3, None)] == [True, True, False, False]
    assert [should_stop_within(curve, patience) for patience in (1, 2)] == [True, False]
    assert not should_stop([], 1)
