"""Matrices of Winograd's minimal filtering for the 3x3 convolutions of small maps, padding 1, stride 1 or 2.

Along one axis, a convolution of pixels x by taps w is `outputs @ ((taps @ w) * (pixels @ x))`: sums of pixels times sums of taps, where
each product is used by several outputs. For two axes the matrices of both are applied, one to the rows and one to the columns. On a 2x2 map
the pixels x0, x1 and the taps w0, w1, w2 give

    y0 = w1 x0 + w2 x1 = w1 (x0 + x1) + (w2 - w1) x1
    y1 = w0 x0 + w1 x1 = w1 (x0 + x1) + (w0 - w1) x0

so three products do the work of four, and along both axes nine do the work of sixteen.

    map  stride  products per axis  of both axes  pairs of tap and pixel that meet
    2x2  1       3                  9             16
    4x4  1       6                  36            100
    7x7  1       9 and 10           90            361
    4x4  2       5                  25            25 (as many, but in one batched product)
    7x7  2       8                  64            100

Against float64 the rounding error in float32 is 1e-6 of the result (2x2 and 4x4) to 3e-6 (7x7); that of the library's convolution is 5e-7.

Sources: S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks,
2016, arXiv:1509.09308.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PIXEL_SUMS = ((1, 0), (1, 1), (0, 1))  # x0, x0 + x1, x1
TAP_DIFFERENCES = ((1, -1, 0), (0, 1, 0), (0, -1, 1))  # w0 - w1, w1, w2 - w1
PRODUCT_SUMS = ((0, 1, 1), (1, 1, 0))  # y0, y1

FOUR = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
SEVEN = (0.244, -0.244, 0.659, -0.659, 1.142, -1.142, 2.359, -2.359)
SEVEN_WITH_PAIR = (0.342, -0.342, 0.877, -0.877, 1.59, -1.59, 1j)
"""Interpolation points for 4 and 7 pixels: of those tried, the ones with the smallest rounding errors. 1j stands for 1j and -1j."""
POINTS: dict[int, tuple[Sequence[complex], Sequence[complex]]] = {4: (FOUR, FOUR), 7: (SEVEN, SEVEN_WITH_PAIR)}
"""By map size, for the rows and the columns. SEVEN for both would be 81 products, with an error of 1e-5."""
STRIDED_POINTS: dict[int, Sequence[float]] = {4: (0, 1), 7: (0, 1, -1)}
"""By map size, for stride 2."""

PAIR_FACTORS = ((1, 0), (0, 1), (1, 1))  # of u + iv: u, v, u + v
PAIR_VALUES = ((1, -1, 0), (-1, -1, 1))  # from their products with those of p + iq: up - vq, (u + v)(p + q) - up - vq


class AxisFilter(NamedTuple):
    """The matrices of a convolution along one axis, float64."""

    pixels: Tensor
    """[products, pixels]"""
    taps: Tensor
    """[products, 3]"""
    outputs: Tensor
    """[outputs, products]"""


class WinogradFilter(NamedTuple):
    """The matrices of a convolution along both axes: each one pair, for rows and columns, or the Kronecker product of the pair."""

    pixels: tuple[Tensor, ...]
    taps: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def has_winograd_filter(kernel: int, stride: int, map_size: int) -> bool:
    """Whether `winograd_filter` knows this convolution."""
    return kernel == 3 and (map_size in (2, *POINTS) if stride == 1 else stride == 2 and map_size in STRIDED_POINTS)


@functools.cache
def winograd_filter(map_size: int, stride: int, dtype: torch.dtype) -> WinogradFilter:
    """The matrices for maps of this size, computed in float64. Each call returns the same tensors."""
    if stride == 2:
        rows = columns = strided_filter(map_size, STRIDED_POINTS[map_size])
    elif map_size == 2:
        rows = columns = AxisFilter(*(torch.tensor(matrix, dtype=torch.float64) for matrix in (PIXEL_SUMS, TAP_DIFFERENCES, PRODUCT_SUMS)))
    else:
        rows, columns = map(minimal_filter, POINTS[map_size])
    axes = zip(rows, columns, strict=True)
    # With so few sums, one product for both axes is faster.
    matrices = [(torch.kron(*pair),) for pair in axes] if map_size == 2 else axes
    return WinogradFilter(*(tuple(matrix.to(dtype) for matrix in pair) for pair in matrices))


def minimal_filter(points: Sequence[complex]) -> AxisFilter:
    """The filter of stride 1 for n output pixels, from n + 1 points and infinity; a pair of conjugates counts as two points.

    It is the transpose of multiplying two polynomials by their values at the points. A real point and infinity take one product each. At a
    pair, where the two values are conjugates, three are enough: (u + iv)(p + iq) = up - vq + i ((u + v)(p + q) - up - vq).
    """
    one = ((1,),)
    of_each = [(PAIR_FACTORS, PAIR_VALUES) if isinstance(point, complex) else (one, one) for point in points] + [(one, one)]
    blocks = ([torch.tensor(block, dtype=torch.float64) for block in column] for column in zip(*of_each, strict=True))
    factors, values = (torch.block_diag(*column) for column in blocks)
    num_values = len(values)
    coefficients = torch.linalg.solve(_values(points, num_values), values)
    coefficients[coefficients.abs() < 1e-12] = 0  # a zero up to rounding, and a zero costs no multiplication
    # The first and the last pixel are padding.
    return AxisFilter(coefficients.T[:, 1:-1], factors @ _values(points, 3), (factors @ _values(points, num_values - 2)).T)


def strided_filter(map_size: int, points: Sequence[float]) -> AxisFilter:
    """The filter of stride 2, where output `i` is w0 x[2i - 1] + w1 x[2i] + w2 x[2i + 1].

    The even pixels take one product each. For the odd ones, x1, x3 and so on, the outputs are the coefficients of the polynomial with these
    coefficients, times w2 + w0 z. They are computed from the values at the points and at infinity, as many as there are coefficients.
    """
    num_outputs, num_odd = (map_size + 1) // 2, map_size // 2
    pixels = torch.zeros(num_outputs + len(points) + 1, map_size, dtype=torch.float64)
    pixels[:num_outputs, ::2] = torch.eye(num_outputs, dtype=torch.float64)
    pixels[num_outputs:, 1::2] = _values(points, num_odd)
    taps = torch.zeros(len(pixels), 3, dtype=torch.float64)
    taps[:num_outputs, 1] = 1
    taps[num_outputs:, [2, 0]] = _values(points, 2)
    coefficients = torch.linalg.inv(_values(points, num_odd + 1))[:num_outputs]
    return AxisFilter(pixels, taps, torch.cat([torch.eye(num_outputs, dtype=torch.float64), coefficients], dim=1))


def _values(points: Sequence[complex], num_coefficients: int) -> Tensor:
    """The matrix from a polynomial's coefficients to its values at the points and to its leading coefficient, the value at infinity.

    The value at a complex point takes two rows, for its real and its imaginary part.
    """
    rows = []
    for point in points:
        powers = [complex(point) ** power for power in range(num_coefficients)]
        rows.append([power.real for power in powers])
        if isinstance(point, complex):
            rows.append([power.imag for power in powers])
    rows.append([0.0] * (num_coefficients - 1) + [1.0])
    return torch.tensor(rows, dtype=torch.float64)
