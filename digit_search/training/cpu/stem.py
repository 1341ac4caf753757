"""ResNet's stem on the CPU: batch norm and max-pooling in the cheaper order, the same function.

Batch norm stretches a channel and shifts it. Where the stretch is not negative, the largest pixel stays the largest, so pooling may come
first, and all but the statistics is computed on a quarter of the pixels. At batch 256 the 14x14 maps take 13 MB, in and out and backwards:
two of five such tensors are never made, and the passes over them never run.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from digit_search.training.cpu.batchnorm import PixelBatchNorm2d, by_pixel, normalise, normalise_backward


class PooledBatchNorm2d(PixelBatchNorm2d):
    """Batch norm and the max-pooling after it. In a state_dict it is the batch norm alone."""

    def __init__(self, norm: nn.BatchNorm2d, pool: nn.MaxPool2d) -> None:
        super().__init__(norm)
        self.window = (pool.kernel_size, pool.stride, pool.padding)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the pooled, normalised maps [batch, channels, height, width]; those from eager mode on the CPU lie by pixel."""
        if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return F.max_pool2d(super().forward(maps), *self.window)
        if (self.weight < 0).any():
            return by_pixel(F.max_pool2d(super().forward(maps), *self.window))
        if not self.training:
            return super().forward(by_pixel(F.max_pool2d(maps, *self.window)))
        self.num_batches_tracked.add_(1)
        mean, variance = torch.batch_norm_update_stats(maps.detach(), self.running_mean, self.running_var, self.momentum)
        return PoolThenNorm.apply(maps, self.weight, self.bias, mean, variance, self.eps, self.window)


class PoolThenNorm(torch.autograd.Function):
    """The largest pixels of maps, normalised by the mean and the (biased) variance of all their pixels, which depend on them."""

    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, window: tuple) -> Tensor:
        pooled, places = F.max_pool2d_with_indices(maps, *window)
        pooled = by_pixel(pooled)
        ctx.save_for_backward(maps, weight, mean, variance, pooled, places)
        ctx.eps, ctx.window = eps, window
        return normalise(pooled, weight, bias, (mean, variance), eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        maps, weight, mean, variance, pooled, places = ctx.saved_tensors
        kernel, stride, padding = ctx.window
        # As if mean and variance were constants.
        pooled_grad, weight_grad, bias_grad = normalise_backward(outputs_grad, pooled, weight, (mean, variance), ctx.eps)
        pooled_grad = pooled_grad.contiguous(memory_format=torch.channels_last)
        grad = torch.ops.aten.max_pool2d_with_indices_backward(
            pooled_grad, maps, [kernel] * 2, [stride] * 2, [padding] * 2, [1, 1], False, places
        )
        # Every pixel moves mean and variance: less (bias_grad + normalised pixel x weight_grad) x scale / number of pixels.
        inverse_deviation = (variance + ctx.eps).rsqrt()
        scale = weight * inverse_deviation
        num_pixels = maps.numel() / len(weight)
        per_value = -scale * inverse_deviation * weight_grad / num_pixels
        constant = -scale * bias_grad / num_pixels - per_value * mean
        grad.addcmul_(maps, per_value.view(-1, 1, 1)).add_(constant.view(-1, 1, 1))
        return grad, weight_grad, bias_grad, None, None, None, None


def pool_before_norm(model: nn.Module) -> None:
    """Let a torchvision ResNet's stem pool first, in place. Maximum and ReLU commute too, gradients included, so that ReLU comes last."""
    if isinstance(model.maxpool, nn.MaxPool2d):
        model.bn1 = PooledBatchNorm2d(model.bn1, model.maxpool)
        model.maxpool = nn.Identity()
