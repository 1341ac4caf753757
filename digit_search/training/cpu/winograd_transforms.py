"""Weighted sums of pixels along both axes of small maps, for all images and channels at once: Winograd's input and output transforms.

A sum along an axis is the product of a small matrix of weights, of some ten rows, with one of very long rows, and so it is computed. But
where MKL is avoided (products.py), that takes it twice as long as memory. There a sum is a bag of torch's `embedding_bag`, which adds
weighted rows of a table, and is as fast as memory if the rows of a bag lie in the first-level cache. For that the values of a pixel are
cut into pieces, and all sums of one piece come in turn. So it is for the first axis; the sums of the second come in the order that is
wanted.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from digit_search.training.cpu.matmul_backend import avoids_mkl

LARGEST_PIECE = 1024
"""Numbers: 4 KiB in float32, of which a bag takes 4 to 10. A piece of an odd length is cut no further."""


def sum_up(matrices: tuple[Tensor, ...], values: Tensor, shape: tuple[int, ...], *, transposed: bool = False) -> Tensor:
    """Multiply values [rows x columns, n] by the Kronecker product of two matrices.

    Args:
        matrices: that of the rows and that of the columns, or their Kronecker product. The same tensors each time: bags are kept for them.
        values: contiguous, in any shape of as many numbers.
        shape: what to return the sums [sums, n] in.
        transposed: multiply by the transposed matrices, as the gradient needs it.
    """
    if len(matrices) == 1:
        matrix = matrices[0].t() if transposed else matrices[0]
        return torch.mm(matrix, values.view(matrix.shape[1], -1)).view(shape)
    if not torch.compiler.is_compiling() and avoids_mkl():
        first, second, piece = _bags(*matrices, values.numel(), transposed)
        return second.sum(first.sum(values.view(-1, piece))).view(shape)
    rows, columns = (matrix.t() for matrix in matrices) if transposed else matrices
    return _sum_by_products(rows, columns, values).view(shape)


def _sum_by_products(rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    (num_sums, num_rows), num_columns = rows.shape, columns.shape[1]
    # The rows grow first and shrink last: their filter has no more products than that of the columns, so that least is in between.
    if num_sums > num_rows:
        by_row = torch.mm(rows, values.view(num_rows, -1))
        return torch.bmm(columns.expand(num_sums, -1, -1), by_row.view(num_sums, num_columns, -1))
    by_column = torch.bmm(columns.expand(num_rows, -1, -1), values.view(num_rows, num_columns, -1))
    return torch.mm(rows, by_column.view(num_rows, -1))


class Bags(NamedTuple):
    """What `embedding_bag` adds: numbers of a table's rows, where each bag of them begins, and their weights."""

    indices: Tensor
    offsets: Tensor
    weights: Tensor

    def sum(self, table: Tensor) -> Tensor:
        return torch.embedding_bag(table, self.indices, self.offsets, False, 0, False, self.weights)[0]


@functools.lru_cache(maxsize=512)
def _bags(rows: Tensor, columns: Tensor, num_values: int, transposed: bool) -> tuple[Bags, Bags, int]:
    """The bags of the first axis and of the second one for so many values in all, and how long a piece of a pixel's values is."""
    if transposed:
        rows, columns = rows.t(), columns.t()
    (num_sums, num_rows), num_columns = rows.shape, columns.shape[1]
    piece, num_pieces = num_values // (num_rows * num_columns), 1
    while piece > LARGEST_PIECE and piece % 2 == 0:
        piece, num_pieces = piece // 2, num_pieces * 2
    if num_sums > num_rows:
        # Sums of rows [column, piece, sum], and of these sums along the columns [sum, sum, piece].
        table = _numbers(num_rows, num_columns, num_pieces).permute(1, 2, 0)
        by_row = _numbers(num_columns, num_pieces, num_sums).permute(2, 1, 0)
        return _in_bags(table[:, :, None], rows), _in_bags(by_row[:, None], columns[:, None]), piece
    table = _numbers(num_rows, num_columns, num_pieces).permute(0, 2, 1)
    by_column = _numbers(num_rows, num_pieces, len(columns)).permute(2, 1, 0)
    return _in_bags(table[:, :, None], columns), _in_bags(by_column[None], rows[:, None, None]), piece


def _numbers(*shape: int) -> Tensor:
    """The numbers of a table's rows, by their places in a tensor of this shape."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.int32).view(shape)


def _in_bags(numbers: Tensor, weights: Tensor) -> Bags:
    """The bags along the last axis, where the weight is not zero."""
    numbers, weights = torch.broadcast_tensors(numbers, weights)
    counts = (weights != 0).sum(-1, dtype=torch.int32).flatten()
    return Bags(numbers[weights != 0], counts.cumsum(0, dtype=torch.int32) - counts, weights[weights != 0])
