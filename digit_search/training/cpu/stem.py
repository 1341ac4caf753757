"""ResNet's stem on the CPU: max-pooling before batch norm, the same function.

Batch norm scales and shifts each channel. If the scale is not negative, the largest pixel stays the largest, so pooling may come first,
and everything but the statistics is computed on a quarter of the pixels. At batch 256 the 14x14 maps take 13 MB; of five such tensors in
the forward and backward passes, two are not needed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from digit_search.training.cpu.batchnorm import HwncBatchNorm2d, normalise, normalise_backward, to_hwnc, update_running_statistics

Window = tuple[int, int, int]
"""Kernel size, stride and padding of a square pooling window."""


class PooledBatchNorm2d(HwncBatchNorm2d):
    """Batch norm followed by max-pooling. In a state_dict it looks like the batch norm."""

    def __init__(self, norm: nn.BatchNorm2d, window: Window) -> None:
        super().__init__(norm)
        self.window = window

    def forward(self, maps: Tensor) -> Tensor:
        """Return the normalised, pooled maps [batch, channels, height, width]; HWNC in eager mode on the CPU."""
        if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return F.max_pool2d(super().forward(maps), *self.window)
        if (self.weight < 0).any():
            return to_hwnc(F.max_pool2d(super().forward(maps), *self.window))
        if not self.training:
            return super().forward(to_hwnc(F.max_pool2d(maps, *self.window)))
        mean, variance = update_running_statistics(maps, self)
        outputs: Tensor = PoolThenNorm.apply(maps, self.weight, self.bias, mean, variance, self.eps, self.window)
        return outputs


class PoolThenNorm(torch.autograd.Function):
    """Max-pooling, then normalisation by mean and biased variance of all pixels, both of which depend on the pixels."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, window: Window) -> Tensor:
        pooled, indices = F.max_pool2d(maps, *window, return_indices=True)
        pooled = to_hwnc(pooled)
        ctx.save_for_backward(maps, weight, mean, variance, pooled, indices)
        ctx.eps, ctx.window = eps, window
        return normalise(pooled, weight, bias, (mean, variance), eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs_grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        maps, weight, mean, variance, pooled, indices = ctx.saved_tensors
        # First as if mean and variance were constants.
        pooled_grad, weight_grad, bias_grad = normalise_backward(outputs_grad, pooled, weight, (mean, variance), ctx.eps)
        grad = _max_pool_backward(pooled_grad, maps, indices, ctx.window)
        # Then the part through mean and variance: minus (bias_grad + normalised pixel x weight_grad) x scale / number of pixels.
        inverse_deviation = (variance + ctx.eps).rsqrt()
        scale = weight * inverse_deviation
        num_pixels = maps.numel() / len(weight)
        per_value = -scale * inverse_deviation * weight_grad / num_pixels
        constant = -scale * bias_grad / num_pixels - per_value * mean
        grad.addcmul_(maps, per_value.view(-1, 1, 1)).add_(constant.view(-1, 1, 1))
        return grad, weight_grad, bias_grad, None, None, None, None


def _max_pool_backward(pooled_grad: Tensor, maps: Tensor, indices: Tensor, window: Window) -> Tensor:
    """The gradient of max-pooling. torch (2.14.1) has no documented function for it."""
    kernel, stride, padding = ([size] * 2 for size in window)
    pooled_grad = pooled_grad.contiguous(memory_format=torch.channels_last)
    grad: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(pooled_grad, maps, kernel, stride, padding, [1, 1], False, indices)
    return grad


def pool_before_norm(model: nn.Module) -> None:
    """Let the stem of a torchvision ResNet pool first, in place.

    ReLU, between norm and pooling in the original, then comes last: maximum and ReLU commute, and so do their gradients.
    """
    norm, pool = model.get_submodule("bn1"), model.get_submodule("maxpool")
    if isinstance(norm, nn.BatchNorm2d) and isinstance(pool, nn.MaxPool2d):
        model.set_submodule("bn1", PooledBatchNorm2d(norm, pool_window(pool)))
        model.set_submodule("maxpool", nn.Identity())


def pool_window(pool: nn.MaxPool2d) -> Window:
    """Raises ValueError if the window is not square."""
    kernel, stride, padding = pool.kernel_size, pool.stride, pool.padding
    if isinstance(kernel, int) and isinstance(stride, int) and isinstance(padding, int):
        return kernel, stride, padding
    raise ValueError(f"expected a square pooling window, found {pool}")
