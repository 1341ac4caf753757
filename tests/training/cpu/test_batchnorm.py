"""Batch norm of HWNC maps equals torch's: outputs, gradients, statistics."""

import copy

import pytest
import torch
from torch import Tensor, nn

from digit_search.training.cpu.batchnorm import HwncBatchNorm2d, as_one_image, from_one_image, is_hwnc, replace_batch_norms, to_hwnc

BATCH, NUM_CHANNELS = 5, 6
LAYOUTS = {
    "HWNC": to_hwnc,
    "channels first": Tensor.contiguous,
    "channels last": lambda maps: maps.contiguous(memory_format=torch.channels_last),
}


def both_norms() -> tuple[nn.BatchNorm2d, HwncBatchNorm2d]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(NUM_CHANNELS).double()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    return norm, HwncBatchNorm2d(copy.deepcopy(norm))


def results(norm: nn.Module, maps: Tensor) -> list[Tensor]:
    """Results of two forward passes before the two backward passes; the outputs are overwritten, as ReLU does."""
    maps = maps.detach().requires_grad_()
    outputs = [norm(maps).relu_(), norm(2 * maps).relu_()]
    grad = torch.linspace(-1, 1, maps.numel(), dtype=maps.dtype).view_as(maps)
    (outputs[0] * grad + outputs[1] * grad.flip(0)).sum().backward()
    return [*outputs, maps.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var, norm.num_batches_tracked.double()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 4])
def test_outputs_gradients_and_statistics_equal_torchs(size, layout, training):
    usual, ours = (norm.train(training) for norm in both_norms())
    maps = LAYOUTS[layout](torch.randn(BATCH, NUM_CHANNELS, size, size, dtype=torch.float64))
    for actual, expected in zip(results(ours, maps), results(usual, maps), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert ours(maps).stride() == maps.stride()


def test_hwnc_maps_are_viewed_as_a_channels_last_image_and_back_without_a_copy():
    maps = to_hwnc(torch.randn(BATCH, NUM_CHANNELS, 4, 4))
    image = as_one_image(maps)
    assert image.shape == (1, NUM_CHANNELS, 16, BATCH)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert image.data_ptr() == maps.data_ptr()
    back = from_one_image(image, maps.shape)
    assert torch.equal(back, maps)
    assert is_hwnc(back)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, NUM_CHANNELS, 1, 1), "more than 1 value per channel"),
        ((BATCH, NUM_CHANNELS + 1, 2, 2), "running_mean should contain 7 elements not 6"),
        ((BATCH, NUM_CHANNELS, 2), "expected 4D input"),
    ],
)
def test_maps_that_torch_refuses_are_refused_with_its_message(shape, message):
    _, ours = both_norms()
    maps = torch.randn(shape, dtype=torch.float64)
    with pytest.raises((ValueError, RuntimeError), match=message):
        ours(to_hwnc(maps) if maps.dim() == 4 else maps)


def test_only_batch_norms_with_weights_statistics_and_momentum_are_replaced():
    kept = (
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm1d(3),
    )
    model = nn.Sequential(nn.Sequential(nn.BatchNorm2d(3)), *kept).eval()
    state = list(model.state_dict())
    replace_batch_norms(model)
    assert type(model[0][0]) is HwncBatchNorm2d
    assert not model[0][0].training
    assert tuple(model[1:]) == kept
    assert list(model.state_dict()) == state
