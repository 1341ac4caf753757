"""Weighted sums along both axes of small maps, for all images and channels at once: Winograd's input, filter and output transforms.

A sum along one axis is the product of a small matrix with one of about ten very long rows. If MKL is avoided (matmul_backend.py), it is
computed by torch's `embedding_bag` instead, which adds weighted rows of a table. The rows that are added together must fit into the
first-level cache for that, so the values of each pixel are split into pieces. Within a training step both ways take the same time up to
5 % (Zen 5, torch 2.14.1), but they round differently, so a change would change the results of a seed.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from digit_search.training.cpu.matmul_backend import avoids_mkl

LARGEST_PIECE = 1024
"""Values per piece: 4 KiB in float32, and a sum adds 4 to 10 of them. A piece of an odd length is not split further."""


def transform(matrices: tuple[Tensor, ...], values: Tensor, shape: tuple[int, ...], *, transposed: bool = False) -> Tensor:
    """Multiply values [rows x columns, n] by the Kronecker product of a matrix for the rows and a matrix for the columns.

    Args:
        matrices: the two matrices, or only their Kronecker product. Always the same tensors, because results are cached for them.
        values: contiguous, of any shape with as many elements.
        shape: to return the sums [sums, n] in.
        transposed: multiply by the transposed matrices, for the gradient.
    """
    if len(matrices) == 1:
        matrix = matrices[0].t() if transposed else matrices[0]
        return torch.mm(matrix, values.view(matrix.shape[1], -1)).view(shape)
    rows, columns = matrices
    if not torch.compiler.is_compiling() and avoids_mkl():
        first, second, piece = _bags(rows, columns, values.numel(), transposed)
        return second.sum(first.sum(values.view(-1, piece))).view(shape)
    if transposed:
        rows, columns = rows.t(), columns.t()
    return _transform_by_products(rows, columns, values).view(shape)


def _transform_by_products(rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    (num_sums, num_rows), num_columns = rows.shape, columns.shape[1]
    # The rows' filter has no more products than the columns'. Growing the rows first, or shrinking them last, keeps the middle smallest.
    if num_sums > num_rows:
        by_row = torch.mm(rows, values.view(num_rows, -1))
        return torch.bmm(columns.expand(num_sums, -1, -1), by_row.view(num_sums, num_columns, -1))
    by_column = torch.bmm(columns.expand(num_rows, -1, -1), values.view(num_rows, num_columns, -1))
    return torch.mm(rows, by_column.view(num_rows, -1))


class Bags(NamedTuple):
    """The arguments of `embedding_bag`: the indices of a table's rows, the start of each bag among them, and a weight for each index."""

    indices: Tensor
    offsets: Tensor
    weights: Tensor

    def sum(self, table: Tensor) -> Tensor:
        """The weighted sum of the rows of each bag."""
        return torch.nn.functional.embedding_bag(self.indices, table, self.offsets, mode="sum", per_sample_weights=self.weights)


@functools.lru_cache(maxsize=512)
def _bags(rows: Tensor, columns: Tensor, num_values: int, transposed: bool) -> tuple[Bags, Bags, int]:
    """The bags of the first axis, those of the second axis, and the length of a piece, for this number of values."""
    if transposed:
        rows, columns = rows.t(), columns.t()
    (num_sums, num_rows), num_columns = rows.shape, columns.shape[1]
    piece, num_pieces = num_values // (num_rows * num_columns), 1
    while piece > LARGEST_PIECE and piece % 2 == 0:
        piece, num_pieces = piece // 2, num_pieces * 2
    # The sums of one axis are ordered piece by piece, so that the rows they add are in the cache; the second axis restores the order.
    if num_sums > num_rows:
        # Sums along the rows [column, piece, sum], then along the columns [sum, sum, piece].
        table = _indices(num_rows, num_columns, num_pieces).permute(1, 2, 0)
        by_row = _indices(num_columns, num_pieces, num_sums).permute(2, 1, 0)
        return _in_bags(table[:, :, None], rows), _in_bags(by_row[:, None], columns[:, None]), piece
    table = _indices(num_rows, num_columns, num_pieces).permute(0, 2, 1)
    by_column = _indices(num_rows, num_pieces, len(columns)).permute(2, 1, 0)
    return _in_bags(table[:, :, None], columns), _in_bags(by_column[None], rows[:, None, None]), piece


def _indices(*shape: int) -> Tensor:
    """The index of each element of a contiguous tensor of this shape."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.int32).view(shape)


def _in_bags(indices: Tensor, weights: Tensor) -> Bags:
    """One bag for each place along all axes but the last; weights of zero are left out."""
    indices, weights = torch.broadcast_tensors(indices, weights)
    counts = (weights != 0).sum(-1, dtype=torch.int32).flatten()
    return Bags(indices[weights != 0], counts.cumsum(0, dtype=torch.int32) - counts, weights[weights != 0])
