"""A convolution on small maps equals the library's."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from digit_search.training.cpu.winograd_conv import SmallMapConv2d, WinogradConvolution, is_one_product
from digit_search.training.cpu.winograd_filters import winograd_filter

LOWERED_LAYERS = [  # map size, kernel, stride; in ResNet18 at 28x28
    (7, 3, 1),
    (7, 3, 2),
    (7, 1, 2),
    (4, 3, 1),
    (4, 3, 2),
    (4, 1, 2),
    (2, 3, 1),
    (2, 3, 2),
    (2, 1, 2),
    (1, 3, 1),
]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 257])
@pytest.mark.parametrize(("map_size", "kernel", "stride"), LOWERED_LAYERS)
def test_a_layer_in_float32_equals_the_librarys_within_2e_5(map_size, kernel, stride, batch, layout):
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
    lowered = SmallMapConv2d(conv, map_size)
    maps = torch.randn(batch, 128, map_size, map_size).contiguous(memory_format=layout)
    actual_maps, expected_maps = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    actual, expected = lowered(actual_maps), conv(expected_maps)
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < 2e-5
    grad = torch.randn_like(expected)
    actual.backward(grad)
    expected.backward(grad)
    assert relative_error(actual_maps.grad, expected_maps.grad) < 2e-5
    weight_grad = lowered.join_taps(lowered.taps.grad, torch.zeros_like(lowered.idle_taps))
    assert relative_error(weight_grad, conv.weight.grad) < 2e-5


@pytest.mark.parametrize(
    ("map_size", "kernel", "stride", "is_one"),
    [
        (1, 3, 1, True),
        (2, 3, 2, True),
        (7, 1, 2, True),
        (2, 3, 1, False),
        (3, 3, 3, False),  # one output, which leaves out pixels of the map
        (14, 1, 2, False),  # as fast in the library
    ],
)
def test_one_product_is_used_if_all_pixels_meet_a_tap_or_there_is_one_tap(map_size, kernel, stride, is_one):
    assert is_one_product(map_size, kernel, stride, padding=kernel // 2) is is_one


@pytest.mark.parametrize(("map_size", "stride"), [(2, 1), (4, 1), (7, 1), (4, 2), (7, 2)])
def test_winograds_convolution_equals_the_librarys_to_13_digits(map_size, stride):
    torch.manual_seed(0)
    maps, weight = torch.randn(3, 5, map_size, map_size, dtype=torch.float64), torch.randn(4, 5, 3, 3, dtype=torch.float64)
    pixels, taps = maps.permute(2, 3, 0, 1).contiguous(), weight.permute(2, 3, 1, 0).reshape(9, 5, 4).contiguous()
    outputs = WinogradConvolution.apply(pixels, taps, winograd_filter(map_size, stride, torch.float64))
    assert relative_error(outputs.permute(2, 3, 0, 1), F.conv2d(maps, weight, stride=stride, padding=1)) < 1e-13


@pytest.mark.parametrize(
    ("map_size", "stride", "tolerance"), [(2, 1, 1.5e-6), (4, 1, 1.5e-6), (7, 1, 3.5e-6), (4, 2, 1.5e-6), (7, 2, 1.5e-6)]
)
def test_rounding_errors_are_at_most_the_documented_ones(map_size, stride, tolerance):
    torch.manual_seed(0)
    shape = (map_size, map_size, 32, 64), (9, 64, 64), (math.ceil(map_size / stride), math.ceil(map_size / stride), 32, 64)
    pixels, taps, grad = (torch.randn(each, dtype=torch.float64).float() for each in shape)

    def results(dtype):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (pixels, taps)]
        outputs = WinogradConvolution.apply(*leaves, winograd_filter(map_size, stride, dtype))
        return [outputs, *torch.autograd.grad(outputs, leaves, grad.to(dtype))]

    errors = [relative_error(actual, expected) for actual, expected in zip(results(torch.float32), results(torch.float64), strict=True)]
    assert max(errors) < tolerance, errors
