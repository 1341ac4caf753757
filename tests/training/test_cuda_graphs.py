"""A step is recorded after the warm-up, once for each learning rate; a training with recorded steps is the same training."""

from dataclasses import replace

import pytest
import torch

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import TrialParams
from digit_search.training import trainer as trainer_module
from digit_search.training.cuda_graphs import WARM_UP_STEPS, ReplayedStep
from digit_search.training.device import plan_device
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer


class FakeRecording:
    """Replaces a CUDA graph: it has its own copy of the inputs, as a graph has, and runs the step."""

    made = 0

    def __init__(self, step, inputs, labels):
        FakeRecording.made += 1
        self.step, self.inputs, self.labels = step, inputs.clone(), labels.clone()

    def __call__(self, inputs, labels):
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)
        return self.step(self.inputs, self.labels)


@pytest.fixture(autouse=True)
def no_recordings():
    FakeRecording.made = 0


def test_a_step_is_recorded_once_after_the_warm_up():
    replayed = ReplayedStep(FakeRecording)
    for count in range(WARM_UP_STEPS + 3):
        inputs, labels = torch.full((4,), float(count)), torch.full((4,), count)
        outputs, loss = replayed(lambda inputs, labels: (inputs * 2, labels.sum()), inputs, labels, 0.1)
        assert outputs.tolist() == [2.0 * count] * 4
        assert loss == 4 * count
        assert FakeRecording.made == (count >= WARM_UP_STEPS)


def test_a_step_is_recorded_again_when_the_learning_rate_changes():
    replayed, inputs, labels = ReplayedStep(FakeRecording), torch.arange(3.0), torch.arange(3)
    made = []
    for lr in [0.1] * (WARM_UP_STEPS + 2) + [0.01] * 2 + [0.1]:
        replayed(lambda inputs, labels: (inputs, labels), inputs, labels, lr)
        made.append(FakeRecording.made)
    assert made[WARM_UP_STEPS:] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.slow
def test_a_training_with_recorded_steps_is_the_same_training(monkeypatch, accumulation_steps):
    monkeypatch.setattr(trainer_module, "ReplayedStep", lambda: ReplayedStep(FakeRecording))
    torch.set_num_threads(1)
    table = read_train(SAMPLE_FOLDER / "train.csv.gz").slice(0, 230)
    split = split_rows(label_view(table), validation_fraction=0.1, seed=0)
    params = TrialParams(lr=0.001, batch_size=32, step_size=1, gamma=0.1, accumulation_steps=accumulation_steps)
    curves = []
    for replays in (False, True):
        # Adam's `capturable` is only for CUDA.
        setup = make_setup(table, split, plan_device("cpu"), ema_half_life_epochs=0.25)
        monkeypatch.setattr(torch.optim.Adam, "__init__", _without_capturable)
        trainer = Trainer(replace(setup, plan=replace(setup.plan, replays=replays)), params, seed=0)
        curves.append([replace(trainer.advance(), seconds=0.0) for _ in range(3)])
    assert curves[0] == curves[1]
    # 207 digits are six whole batches: three of the first epoch are recorded, and the learning rate drops twice.
    assert FakeRecording.made == (3 if accumulation_steps == 1 else 0)


_adam = torch.optim.Adam.__init__


def _without_capturable(self, *args, capturable=False, **options):
    _adam(self, *args, **options)
