"""The stem that pools first equals batch norm, then pooling: outputs, gradients, statistics."""

import copy

import pytest
import torch
from torch import Tensor, nn

from digit_search.training.cpu.batchnorm import is_hwnc
from digit_search.training.cpu.stem import PooledBatchNorm2d, pool_window

NUM_CHANNELS = 6


def both_stems(lowest_weight: float) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(NUM_CHANNELS).double()
    norm.weight.data.uniform_(lowest_weight, 1.0)
    norm.bias.data.normal_()
    pool = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(copy.deepcopy(norm), pool), nn.Sequential(PooledBatchNorm2d(copy.deepcopy(norm), pool_window(pool)))


def results(stem: nn.Module, maps: Tensor) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    # ReLU overwrites the outputs.
    outputs = stem(maps).relu_()
    outputs.backward(torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs))
    norm = stem[0]
    statistics = [norm.running_mean, norm.running_var, norm.num_batches_tracked.double()]
    return [outputs.detach(), maps.grad, norm.weight.grad, norm.bias.grad, *statistics]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lowest_weight", [0.1, 0.0, -1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_gradients_and_statistics_equal_those_of_the_usual_order(layout, lowest_weight, training):
    torch.manual_seed(1)
    usual, ours = both_stems(lowest_weight)
    maps = torch.randn(5, NUM_CHANNELS, 14, 14, dtype=torch.float64).contiguous(memory_format=layout)
    for stem in (usual, ours):
        stem.train(training)
    for actual, expected in zip(results(ours, maps), results(usual, maps), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert is_hwnc(ours(maps))


def test_a_channel_whose_weight_is_zero_gives_its_bias_and_no_gradient():
    _, ours = both_stems(0.5)
    ours[0].weight.data.zero_()
    outputs, grad, *_ = results(ours, torch.randn(3, NUM_CHANNELS, 14, 14, dtype=torch.float64))
    assert torch.equal(outputs, ours[0].bias.detach().relu().view(-1, 1, 1).expand_as(outputs))
    assert not grad.any()


def test_a_window_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="expected a square pooling window"):
        pool_window(nn.MaxPool2d((3, 2)))
