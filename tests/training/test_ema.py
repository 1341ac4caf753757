"""The moving average of the weights."""

import pytest
import torch

from digit_search.training.ema import WeightAverage


def test_the_average_follows_with_its_half_life():
    weight = torch.zeros(1)
    average = WeightAverage([weight], half_life_steps=10)
    for _ in range(200):
        average.after_step()
    weight.fill_(1.0)
    for _ in range(10):
        average.after_step()
    with average.swapped_in():
        assert weight.item() == pytest.approx(0.5, abs=0.01)
    assert weight.item() == 1.0


def test_the_initial_weights_are_forgotten_within_a_few_steps():
    weight = torch.full((1,), 100.0)
    average = WeightAverage([weight], half_life_steps=5)
    weight.zero_()
    for _ in range(12):
        average.after_step()
    with average.swapped_in():
        assert weight.item() < 1.0


def test_the_trained_weights_come_back_even_after_an_error():
    weight = torch.ones(1)
    average = WeightAverage([weight], half_life_steps=1)
    weight.fill_(5.0)
    with pytest.raises(RuntimeError), average.swapped_in():
        assert weight.item() == 1.0
        raise RuntimeError
    assert weight.item() == 5.0


def test_averages_continue_from_their_state():
    weight = torch.zeros(3)
    first = WeightAverage([weight], half_life_steps=4)
    weight.fill_(2.0)
    first.after_step()
    second = WeightAverage([weight], half_life_steps=4)
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        average.after_step()
    with first.swapped_in():
        expected = weight.clone()
    with second.swapped_in():
        assert torch.equal(weight, expected)
