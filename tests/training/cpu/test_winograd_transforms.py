"""Sums along both axes are products with the Kronecker product of both matrices, however they are computed."""

import pytest
import torch

from digit_search.training.cpu import winograd_transforms
from digit_search.training.cpu.winograd_conv import shared_products
from digit_search.training.cpu.winograd_transforms import sum_up


@pytest.mark.parametrize("by_bags", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("num_values", [1, 64, 31 * 64, 257 * 64])
@pytest.mark.parametrize(("map_size", "stride"), [(2, 1), (4, 1), (7, 1), (4, 2), (7, 2)])
def test_sums_and_their_gradients_are_those_of_one_matrix_for_both_axes(
    monkeypatch, map_size, stride, num_values, dtype, tolerance, by_bags
):
    monkeypatch.setattr(winograd_transforms, "avoids_mkl", lambda: by_bags)
    torch.manual_seed(0)
    for matrices in shared_products(map_size, stride, dtype):
        together = matrices[0] if len(matrices) == 1 else torch.kron(*matrices)
        for transposed, matrix in ((False, together), (True, together.t())):
            values = torch.randn(matrix.shape[1], num_values, dtype=dtype)
            expected = matrix.double() @ values.double()
            found = sum_up(matrices, values, (-1, num_values), transposed=transposed)
            assert (found - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("avoids", [True, False])
def test_there_are_bags_where_mkl_is_avoided_and_nowhere_else(monkeypatch, avoids):
    used = []
    embedding_bag = torch.embedding_bag
    monkeypatch.setattr(torch, "embedding_bag", lambda *args: used.append(args) or embedding_bag(*args))
    monkeypatch.setattr(winograd_transforms, "avoids_mkl", lambda: avoids)
    sum_up(shared_products(4, 1, torch.float32).pixels, torch.randn(16, 8), (36, 8))
    assert len(used) == 2 * avoids


def test_bags_are_cut_into_pieces_that_fit_the_first_level_cache_and_leave_zeros_out():
    rows, columns = shared_products(7, 2, torch.float32).pixels
    first, second, piece = winograd_transforms._bags(rows, columns, 49 * 256 * 64, transposed=False)
    num_pieces = 256 * 64 // piece
    assert piece == winograd_transforms.LARGEST_PIECE
    assert len(first.offsets) == 8 * 7 * num_pieces
    assert len(first.indices) == (rows != 0).sum() * 7 * num_pieces
    assert len(second.offsets) == 8 * 8 * num_pieces
    assert len(second.indices) == (columns != 0).sum() * 8 * num_pieces


def test_a_compiled_model_asks_for_no_processor(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(winograd_transforms, "avoids_mkl", lambda: pytest.fail("asked"))
    matrices = shared_products(4, 1, torch.float64).pixels
    values = torch.randn(16, 8, dtype=torch.float64)
    torch.testing.assert_close(sum_up(matrices, values, (36, 8)), torch.kron(*matrices) @ values)


@pytest.mark.parametrize(("map_size", "stride", "num_weights"), [(4, 1, 20), (7, 1, 59 + 63), (7, 2, 12)])
def test_weights_that_are_zero_cost_nothing(map_size, stride, num_weights):
    rows, columns = shared_products(map_size, stride, torch.float32).pixels
    matrices = (rows,) if rows.equal(columns) else (rows, columns)
    assert sum(int((matrix != 0).sum()) for matrix in matrices) == num_weights
    assert all(matrix[matrix != 0].abs().min() > 1e-5 for matrix in matrices)
