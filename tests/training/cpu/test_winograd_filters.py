"""Winograd's filters have few products and few weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from digit_search.training.cpu.winograd_filters import has_winograd_filter, winograd_filter


@pytest.mark.parametrize(
    ("map_size", "stride", "num_pairs", "num_products"),
    [(2, 1, 16, 9), (4, 1, 100, 36), (7, 1, 361, 90), (4, 2, 25, 25), (7, 2, 100, 64)],
)
def test_there_are_no_more_products_than_pairs_of_tap_and_pixel_that_meet(map_size, stride, num_pairs, num_products):
    ones = torch.ones(1, 1, map_size, map_size)
    assert F.conv2d(ones, torch.ones(1, 1, 3, 3), stride=stride, padding=1).sum() == num_pairs
    assert has_winograd_filter(3, stride, map_size)
    matrices = winograd_filter(map_size, stride, torch.float64)
    assert math.prod(len(matrix) for matrix in matrices.taps) == num_products


@pytest.mark.parametrize(("kernel", "stride", "map_size"), [(1, 1, 4), (3, 1, 14), (3, 2, 2), (3, 3, 4)])
def test_other_convolutions_have_no_filter(kernel, stride, map_size):
    assert not has_winograd_filter(kernel, stride, map_size)


@pytest.mark.parametrize(("map_size", "stride", "num_weights"), [(4, 1, 20), (7, 1, 59 + 63), (7, 2, 12)])
def test_weights_that_should_be_zero_are_exactly_zero(map_size, stride, num_weights):
    rows, columns = winograd_filter(map_size, stride, torch.float32).pixels
    matrices = (rows,) if rows.equal(columns) else (rows, columns)
    assert sum(int((matrix != 0).sum()) for matrix in matrices) == num_weights
    assert all(matrix[matrix != 0].abs().min() > 1e-5 for matrix in matrices)
