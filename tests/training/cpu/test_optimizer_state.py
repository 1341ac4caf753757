"""A state has torchvision's names and shapes, so that a training resumes on a device whose convolutions store their weights otherwise."""

import copy
from dataclasses import replace

import pytest
import torch

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import TrialParams
from digit_search.training import trainer as trainer_module
from digit_search.training.device import plan_device
from digit_search.training.model import build_resnet18
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer

PARAMS = TrialParams(lr=1e-4, batch_size=48, step_size=1, gamma=0.5)


@pytest.fixture(scope="module")
def setup():
    torch.set_num_threads(1)
    table = read_train(SAMPLE_FOLDER / "train.csv.gz").slice(0, 220)
    return make_setup(table, split_rows(label_view(table), validation_fraction=0.1, seed=0), plan_device("cpu"), ema_half_life_epochs=0.25)


def trainer(setup, params, *, is_lowered):
    """A trainer with the model of the CPU, or with the model of all other devices."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_lowered:
            patch.setattr(trainer_module, "lower_small_maps", lambda model: model)
        return Trainer(setup, params, seed=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("lowered", [(True, False), (False, True), (True, True)])
@pytest.mark.slow
def test_a_training_resumes_with_the_weights_in_another_layout(setup, lowered, weight_decay):
    params = replace(PARAMS, weight_decay=weight_decay)
    before, after = (trainer(setup, params, is_lowered=is_lowered) for is_lowered in lowered)
    before.advance()
    saved = copy.deepcopy(before.state_dict())
    after.load_state_dict(saved)
    back = trainer(setup, params, is_lowered=lowered[0])
    back.load_state_dict(copy.deepcopy(after.state_dict()))
    assert_equal(back.state_dict(), saved)
    expected, actual = before.advance(), after.advance()
    assert (actual.epoch, actual.lr) == (expected.epoch, expected.lr)
    assert after.state_dict()["adam"]["steps"] == before.state_dict()["adam"]["steps"] == 10
    # In the same layout it continues exactly. In another one rounding differs, which changes Adam's steps by a fraction.
    ours, theirs = after.model.state_dict(), before.model.state_dict()
    off = sum((ours[name] - theirs[name]).abs().sum() for name, _ in build_resnet18(0).named_parameters())
    moved = sum((theirs[name] - saved["model"][name]).abs().sum() for name, _ in build_resnet18(0).named_parameters())
    assert off <= (0.0 if lowered == (True, True) else 0.2 * moved)


def assert_equal(actual, expected, where="state"):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), where
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_equal(actual[name], value, f"{where}, {name}")
    else:
        assert actual == expected, where


@pytest.mark.parametrize(("is_lowered", "weight_decay"), [(False, 0.0), (True, 0.01), (True, 0.0)])
@pytest.mark.slow
def test_a_state_has_torchvisions_names_and_for_whole_weights_its_shapes(setup, is_lowered, weight_decay):
    training = trainer(setup, replace(PARAMS, weight_decay=weight_decay), is_lowered=is_lowered)
    training.advance()
    state = training.state_dict()
    stock = build_resnet18(0)
    parameters = {name: parameter.shape for name, parameter in stock.named_parameters()}
    floating = {name: value.shape for name, value in stock.state_dict().items() if value.is_floating_point()}
    for values, expected in ((state["adam"]["exp_avg"], parameters), (state["average"]["averages"], floating)):
        assert values.keys() == expected.keys()
        in_part = {name: value for name, value in values.items() if not isinstance(value, torch.Tensor)}
        assert {name: value.shape for name, value in values.items() if name not in in_part}.items() <= expected.items()
        # Without weight decay the idle taps never change and are not saved.
        assert {name: len(value["taps"]) for name, value in in_part.items()} == (
            {"layer4.0.conv1.weight": 4, "layer4.0.conv2.weight": 1, "layer4.1.conv1.weight": 1, "layer4.1.conv2.weight": 1}
            if is_lowered and not weight_decay
            else {}
        )


def test_the_moments_of_another_model_are_refused(setup):
    training = trainer(setup, PARAMS, is_lowered=True)
    training.advance()
    state = training.state_dict()
    state["adam"]["exp_avg"]["fc.bias"] = torch.zeros(1)
    with pytest.raises(ValueError, match="moments of fc"):
        trainer(setup, PARAMS, is_lowered=True).load_state_dict(state)
