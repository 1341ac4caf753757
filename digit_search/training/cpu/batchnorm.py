"""Batch norm on maps in HWNC order, [row, column, batch, channel], on the CPU.

The small convolutions (winograd_conv.py) read and write maps in this order. The layers between them are elementwise, which torch computes
equally fast in any order, except batch norm: it has fast kernels only for the usual orders. But batch norm treats all pixels of all images
alike, so the maps can be viewed as a single image, with a row for each pixel of a map and a column for each image. In memory that image
is channels-last, so nothing has to be copied between the first small map and the last.

This module has all uses of torch's undocumented batch-norm operators, checked with torch 2.14.1: `native_batch_norm` with `out`, because
the output of an autograd function must not be a view if ReLU is to overwrite it; its gradient; and `batch_norm_update_stats`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Statistics = tuple[Tensor, Tensor]
"""Two tensors [channels]."""


def to_hwnc(maps: Tensor) -> Tensor:
    """The same maps [batch, channels, height, width], in HWNC order in memory."""
    return maps.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)


def is_hwnc(maps: Tensor) -> bool:
    """Whether maps [batch, channels, height, width] are in HWNC order in memory."""
    return maps.dim() == 4 and maps.permute(2, 3, 0, 1).is_contiguous()


def as_one_image(maps: Tensor) -> Tensor:
    """View HWNC maps as [1, channels, height x width, batch], channels-last."""
    pixels = maps.permute(2, 3, 0, 1)
    return pixels.view(1, -1, *pixels.shape[2:]).permute(0, 3, 1, 2)


def from_one_image(image: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `as_one_image`, for maps of this shape."""
    batch, channels, height, width = shape
    return image.permute(0, 2, 3, 1).view(height, width, batch, channels).permute(2, 3, 0, 1)


def update_running_statistics(maps: Tensor, norm: "HwncBatchNorm2d") -> Statistics:
    """Update the norm's running statistics; return the mean and the biased variance of maps in any order."""
    norm.num_batches_tracked.add_(1)
    return torch.batch_norm_update_stats(maps.detach(), norm.running_mean, norm.running_var, norm.momentum)


def normalise(
    maps: Tensor, weight: Tensor, bias: Tensor, statistics: Statistics, eps: float, *, training: bool = False, momentum: float = 0.0
) -> tuple[Tensor, Statistics]:
    """torch's batch norm of HWNC maps.

    Args:
        maps: [batch, channels, height, width].
        weight: [channels].
        bias: [channels].
        statistics: running mean and variance. In training they are updated in place, otherwise they are used.
        eps: added to the variance.
        training: whether the maps are normalised by their own statistics.
        momentum: of the running statistics.

    Returns:
        The outputs, HWNC, and the mean and inverse standard deviation of the maps for the gradient; without training these are empty.
    """
    outputs = torch.empty_like(maps)
    own_statistics = weight.new_empty(len(weight) if training else 0), weight.new_empty(len(weight) if training else 0)
    out = as_one_image(outputs), *own_statistics
    torch.native_batch_norm(as_one_image(maps), weight, bias, *statistics, training, momentum, eps, out=out)
    return outputs, own_statistics


def normalise_backward(
    outputs_grad: Tensor, maps: Tensor, weight: Tensor, statistics: Statistics, eps: float, *, training: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the maps (HWNC), the weight and the bias.

    Args:
        outputs_grad: [batch, channels, height, width], in any order.
        maps: the input of `normalise`, HWNC.
        weight: [channels].
        statistics: in training those that `normalise` returned, otherwise the running ones.
        eps: added to the variance.
        training: as in `normalise`.
    """
    images = as_one_image(to_hwnc(outputs_grad)), as_one_image(maps)
    running_and_own = (None, None, *statistics) if training else (*statistics, None, None)
    image_grad, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
        *images, weight, *running_and_own, training, eps, [True, True, True]
    )
    return from_one_image(image_grad, maps.shape), weight_grad, bias_grad


class HwncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also takes HWNC maps without copying them."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """Take over the parameters and buffers of a batch norm for which `is_replaceable`."""
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the normalised maps [batch, channels, height, width], in the order in memory that they had."""
        if not self._is_supported(maps):
            return super().forward(maps)
        if self.training:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        outputs: Tensor = HwncBatchNorm.apply(maps, self.weight, self.bias, statistics, self.eps, self.training, self.momentum)
        return outputs

    def _is_supported(self, maps: Tensor) -> bool:
        if maps.device.type != "cpu" or maps.dtype != self.weight.dtype or torch.compiler.is_compiling() or not is_hwnc(maps):
            return False
        # Invalid maps go to torch, for its error message.
        return maps.shape[1] == self.num_features < maps.numel()


class HwncBatchNorm(torch.autograd.Function):
    """`normalise` and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, statistics: Statistics, eps: float, training: bool, momentum: float
    ) -> Tensor:
        outputs, own_statistics = normalise(maps, weight, bias, statistics, eps, training=training, momentum=momentum)
        ctx.save_for_backward(maps, weight, *(own_statistics if training else statistics))
        ctx.eps, ctx.training = eps, training
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, *statistics = ctx.saved_tensors
        grads = normalise_backward(outputs_grad, maps, weight, tuple(statistics), ctx.eps, training=ctx.training)
        return *grads, None, None, None, None


def is_replaceable(module: nn.Module) -> bool:
    """Whether a module is torch's batch norm with weights, running statistics and a momentum."""
    return type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats and module.momentum is not None


def replace_batch_norms(model: nn.Module) -> None:
    """Replace the model's batch norms by `HwncBatchNorm2d`, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and is_replaceable(module):
            model.set_submodule(name, HwncBatchNorm2d(module))
