"""A transform equals the product with the Kronecker product of both matrices, whichever way it is computed."""

import pytest
import torch

from digit_search.training.cpu import winograd_transforms
from digit_search.training.cpu.winograd_filters import winograd_filter
from digit_search.training.cpu.winograd_transforms import transform


@pytest.mark.parametrize("by_bags", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("num_values", [1, 64, 31 * 64, 257 * 64])
@pytest.mark.parametrize(("map_size", "stride"), [(2, 1), (4, 1), (7, 1), (4, 2), (7, 2)])
def test_a_transform_and_its_gradient_equal_one_product_for_both_axes(monkeypatch, map_size, stride, num_values, dtype, tolerance, by_bags):
    monkeypatch.setattr(winograd_transforms, "avoids_mkl", lambda: by_bags)
    torch.manual_seed(0)
    for matrices in winograd_filter(map_size, stride, dtype):
        together = matrices[0] if len(matrices) == 1 else torch.kron(*matrices)
        for transposed, matrix in ((False, together), (True, together.t())):
            values = torch.randn(matrix.shape[1], num_values, dtype=dtype)
            expected = matrix.double() @ values.double()
            sums = transform(matrices, values, (-1, num_values), transposed=transposed)
            assert (sums - expected).norm() < tolerance * expected.norm()


def test_a_compiled_model_does_not_look_at_the_processor(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(winograd_transforms, "avoids_mkl", lambda: pytest.fail("called"))
    matrices = winograd_filter(4, 1, torch.float64).pixels
    values = torch.randn(16, 8, dtype=torch.float64)
    torch.testing.assert_close(transform(matrices, values, (36, 8)), torch.kron(*matrices) @ values)
