"""A trainer learns, repeats itself exactly, and continues exactly from its state."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from digit_search.errors import TrialError
from digit_search.records import EpochMetrics, TrialParams
from digit_search.training.batches import place_digits, training_batches
from digit_search.training.device import plan_device
from digit_search.training.model import build_resnet18
from digit_search.training.predict import evaluate
from digit_search.training.setup import TrainingSetup
from digit_search.training.trainer import Trainer, _check_finite

PARAMS = TrialParams(lr=0.001, gamma=0.5, step_size=1, batch_size=32)


@pytest.fixture(scope="module")
def setup() -> TrainingSetup:
    """120 digits of four easy classes: a bright quarter of the image each."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    labels = (np.arange(120) % 4).astype(np.uint8)
    images = generator.integers(0, 60, (120, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[14 * row : 14 * row + 14, 14 * column : 14 * column + 14] += 150
    rows = torch.arange(120)
    return TrainingSetup(place_digits(images.reshape(120, 784), labels, plan_device("cpu")), rows[:96], rows[96:], plan_device("cpu"))


def train(setup, num_epochs, params=PARAMS, seed=1) -> tuple[Trainer, list[EpochMetrics]]:
    trainer = Trainer(setup, params, seed)
    return trainer, [trainer.advance() for _ in range(num_epochs * setup.reports_per_epoch)]


def timeless(curve):
    return [replace(metrics, seconds=0.0) for metrics in curve]


@pytest.mark.slow
def test_the_loss_falls_and_the_metrics_count_epochs_and_images(setup):
    _, curve = train(setup, 6, replace(PARAMS, step_size=2))
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert curve[-1].val_accuracy > 0.6  # one in four by chance
    assert [(metrics.epoch, metrics.images, metrics.lr) for metrics in curve[:3]] == [(1, 96, 0.001), (2, 96, 0.001), (3, 96, 0.0005)]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(setup):
    one, curve = train(setup, 2)
    same, again = train(setup, 2)
    other, _ = train(setup, 2, seed=2)
    assert timeless(curve) == timeless(again)
    states = [trainer.model.state_dict() for trainer in (one, same, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])


@pytest.mark.slow
def test_an_epoch_equals_a_plain_loop_with_adam_and_torchvisions_model(setup, monkeypatch):
    # With ReLU, a number that rounds to the other side of zero moves the gradients of all layers before.
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, maps: F.softplus(maps))
    # At 0.001 a step in the other direction would change the next ones.
    params = replace(PARAMS, lr=1e-5)
    trainer, _ = train(setup, 1, params)
    model = build_resnet18(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=params.lr)
    for images, labels in training_batches(setup.digits, setup.training_rows, params, seed=1, epoch=1):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    ours = trainer.model.state_dict()
    for name, weight in model.named_parameters():
        # Adam's first steps are lr times a gradient's sign, so if a gradient is nearly zero, rounding may change its direction.
        assert (ours[name] - weight).abs().mean() < 0.005 * params.lr, name
    loss, accuracy = evaluate(model, setup.digits, setup.validation_rows, setup.plan)
    ours_loss, ours_accuracy = evaluate(trainer.model, setup.digits, setup.validation_rows, setup.plan)
    assert (ours_loss, ours_accuracy) == (pytest.approx(loss, rel=0.02), pytest.approx(accuracy))


@pytest.mark.slow
def test_a_trainer_continues_exactly_from_its_state(setup, tmp_path):
    setup = replace(setup, ema_half_life_epochs=0.5, reports_per_epoch=2)
    uninterrupted, curve = train(setup, 3)
    first, _ = train(setup, 1)
    first.advance()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Trainer(setup, PARAMS, 1)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    rest = [second.advance() for _ in range(3)]
    assert timeless(rest) == timeless(curve[3:])
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.final_weights().values(), second.final_weights().values(), strict=True))


@pytest.mark.slow
def test_reports_within_an_epoch_do_not_change_the_training(setup):
    whole, _ = train(setup, 2)
    parts, curve = train(replace(setup, reports_per_epoch=3), 2)
    assert [metrics.epoch for metrics in curve] == [0.3333, 0.6667, 1, 1.3333, 1.6667, 2]
    assert sum(metrics.images for metrics in curve) == 2 * 96
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), parts.model.state_dict().values(), strict=True))


def test_accumulation_steps_once_per_window_and_learns(setup):
    """Batch norm sees the small batches, so the result differs from that of the larger batch."""
    small = replace(PARAMS, batch_size=16, accumulation_steps=4)
    trainer, curve = train(setup, 2, small)
    assert trainer.state_dict()["adam"]["steps"] == 2 * 2
    assert curve[-1].train_loss < curve[0].train_loss


def test_averaging_adds_scores_and_exports_the_averages(setup):
    plain, curve = train(setup, 1)
    trainer, averaged = train(replace(setup, ema_half_life_epochs=0.5), 1)
    assert averaged[0].val_loss == curve[0].val_loss
    assert averaged[0].ema_val_loss is not None
    assert averaged[0].scored_loss == averaged[0].ema_val_loss
    assert all(torch.equal(a, b) for a, b in zip(plain.model.state_dict().values(), trainer.model.state_dict().values(), strict=True))
    trainer.model.load_state_dict(trainer.final_weights())
    assert evaluate(trainer.model, setup.digits, setup.validation_rows, setup.plan) == (
        pytest.approx(averaged[0].ema_val_loss),
        averaged[0].ema_val_accuracy,
    )


def test_a_loss_that_is_not_finite_names_epoch_and_learning_rate(setup):
    with pytest.raises(TrialError, match=r"epoch 1: the training loss is (nan|inf) at learning rate 1e\+30"):
        train(setup, 1, replace(PARAMS, lr=1e30))


def test_a_loss_that_no_event_can_hold_has_diverged_too():
    metrics = EpochMetrics(2, 0.5, 0.5, 1e16, 0.1, 0.01, 100, 1.0)
    with pytest.raises(TrialError, match=r"epoch 2: the validation loss is 1e\+16 .* diverged"):
        _check_finite(metrics)
