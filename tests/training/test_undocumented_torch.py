"""Undocumented functions of torch that training calls (checked with 2.14.1). If torch changes one, the test with its name fails."""

import errno

import pytest
import torch
from torch.nn import functional as F

from digit_search.training.tensor_file import save_tensors

MAPS = torch.linspace(-2, 3, 4 * 3 * 6 * 6, dtype=torch.float64).sin().view(4, 3, 6, 6)
WEIGHT, BIAS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)


def running_statistics() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)


def test_native_batch_norm_writes_to_out_and_returns_mean_and_inverse_deviation():
    running, expected_running = running_statistics(), running_statistics()
    out = torch.empty_like(MAPS), torch.empty_like(WEIGHT), torch.empty_like(WEIGHT)
    torch.native_batch_norm(MAPS, WEIGHT, BIAS, *running, True, 0.1, 1e-5, out=out)
    torch.testing.assert_close(out[0], F.batch_norm(MAPS, *expected_running, WEIGHT, BIAS, training=True, momentum=0.1))
    torch.testing.assert_close(running, expected_running)
    torch.testing.assert_close(out[1], MAPS.mean((0, 2, 3)))
    torch.testing.assert_close(out[2], (MAPS.var((0, 2, 3), unbiased=False) + 1e-5).rsqrt())


@pytest.mark.parametrize("training", [True, False])
def test_native_batch_norm_backward_returns_the_gradients_of_maps_weight_and_bias(training):
    maps, weight, bias = (tensor.clone().requires_grad_() for tensor in (MAPS, WEIGHT, BIAS))
    outputs = F.batch_norm(maps, *running_statistics(), weight, bias, training=training)
    expected = torch.autograd.grad(outputs, (maps, weight, bias), torch.cos(MAPS))
    own = MAPS.mean((0, 2, 3)), (MAPS.var((0, 2, 3), unbiased=False) + 1e-5).rsqrt()
    statistics = (None, None, *own) if training else (*running_statistics(), None, None)
    grads = torch.ops.aten.native_batch_norm_backward(torch.cos(MAPS), MAPS, WEIGHT, *statistics, training, 1e-5, [True, True, True])
    torch.testing.assert_close(grads, expected)


def test_batch_norm_update_stats_returns_mean_and_biased_variance():
    running, expected_running = running_statistics(), running_statistics()
    mean, variance = torch.batch_norm_update_stats(MAPS, *running, 0.1)
    F.batch_norm(MAPS, *expected_running, training=True, momentum=0.1)
    torch.testing.assert_close(running, expected_running)
    torch.testing.assert_close(mean, MAPS.mean((0, 2, 3)))
    torch.testing.assert_close(variance, MAPS.var((0, 2, 3), unbiased=False))


def test_max_pool2d_with_indices_backward_returns_the_gradient_of_the_maps():
    maps = MAPS.clone().requires_grad_()
    pooled, indices = F.max_pool2d(maps, 3, 2, 1, return_indices=True)
    pooled_grad = torch.cos(pooled.detach())
    (expected,) = torch.autograd.grad(pooled, maps, pooled_grad)
    grad = torch.ops.aten.max_pool2d_with_indices_backward(pooled_grad, MAPS, [3, 3], [2, 2], [1, 1], [1, 1], False, indices)
    torch.testing.assert_close(grad, expected)


def test_the_precision_of_mkldnn_matmul_can_be_set_and_read():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


def test_torch_cpu_get_capabilities_has_the_processors_name_and_whether_it_has_amx():
    processor = torch.cpu.get_capabilities()
    if processor["architecture"] == "x86_64":
        assert processor["cpu_name"]
        assert isinstance(processor["amx_bf16"], bool)


def test_an_error_of_the_file_is_the_context_of_torch_saves_runtime_error():
    class FullDisk:
        """Has room for the first write and no other."""

        num_writes = 0

        def write(self, data):
            self.num_writes += 1
            if self.num_writes > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(data)

        def flush(self):
            pass

    state = {"weights": torch.zeros(100_000)}
    with pytest.raises(RuntimeError) as caught:
        torch.save(state, FullDisk())
    assert isinstance(caught.value.__context__, OSError)
    with pytest.raises(OSError, match="No space left on device"):
        save_tensors(state, FullDisk())
