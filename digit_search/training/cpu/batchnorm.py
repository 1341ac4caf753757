"""Maps on the CPU that lie pixel by pixel in memory, [row, column, batch, channel] (HWNC), and batch norm on them.

Shared products (small_maps.py) want their pixels in this order and give their outputs in it. Between two convolutions all is elementwise,
which torch does in any order at the same speed, but for batch norm: that has fast kernels for the usual orders alone. Yet it treats all
pixels of all images alike, so that the maps may as well be one image, with as many rows as they have pixels, and as many columns as there
are images. That image is channels-last as it lies, and so nothing need be copied between the first small map and the last.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def by_pixel(maps: Tensor) -> Tensor:
    """The same maps [batch, channels, height, width], lying pixel by pixel."""
    return maps.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)


def lie_by_pixel(maps: Tensor) -> bool:
    """Whether `by_pixel` has nothing to do."""
    return maps.dim() == 4 and maps.permute(2, 3, 0, 1).is_contiguous()


def as_one_image(maps: Tensor) -> Tensor:
    """View maps that lie by pixel as [1, channels, height x width, batch], channels-last."""
    pixels = maps.permute(2, 3, 0, 1)
    return pixels.view(1, -1, *pixels.shape[2:]).permute(0, 3, 1, 2)


def from_one_image(image: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `as_one_image`, for maps of this shape."""
    batch, channels, height, width = shape
    return image.permute(0, 2, 3, 1).view(height, width, batch, channels).permute(2, 3, 0, 1)


Statistics = tuple[Tensor, Tensor]
"""Two of [channels]."""


def normalise(
    maps: Tensor, weight: Tensor, bias: Tensor, statistics: Statistics, eps: float, *, training: bool = False, momentum: float = 0.0
) -> tuple[Tensor, Statistics]:
    """torch's batch norm of maps that lie by pixel, for an autograd function: its output must be no view, or ReLU could not overwrite it.

    Args:
        maps: [batch, channels, height, width].
        weight: [channels].
        bias: [channels].
        statistics: the running mean and variance; in training they are updated in place, and else used.
        eps: added to the variance.
        training: whether the maps are normalised by their own statistics.
        momentum: of the running statistics.

    Returns:
        The outputs, lying by pixel too, and the statistics of the maps that torch's batch norm keeps for the gradient; without training
        these are empty.
    """
    outputs = torch.empty_like(maps)
    of_maps = weight.new_empty(len(weight) if training else 0), weight.new_empty(len(weight) if training else 0)
    out = as_one_image(outputs), *of_maps
    torch.native_batch_norm(as_one_image(maps), weight, bias, *statistics, training, momentum, eps, out=out)
    return outputs, of_maps


def normalise_backward(
    outputs_grad: Tensor, maps: Tensor, weight: Tensor, statistics: Statistics, eps: float, *, training: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the maps, the weight and the bias.

    Args:
        outputs_grad: lying as it may.
        maps: what was normalised; the gradient of the maps lies by pixel as they do.
        weight: [channels].
        statistics: in training those of the maps, and else the running ones.
        eps: added to the variance.
        training: as in `normalise`.
    """
    images = as_one_image(by_pixel(outputs_grad)), as_one_image(maps)
    running_and_own = (None, None, *statistics) if training else (*statistics, None, None)
    image_grad, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
        *images, weight, *running_and_own, training, eps, [True, True, True]
    )
    return from_one_image(image_grad, maps.shape), weight_grad, bias_grad


class PixelBatchNorm2d(nn.BatchNorm2d):
    """Batch norm, also of maps that lie by pixel."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """Take over the parameters and statistics of a batch norm that has both."""
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var, self.num_batches_tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the normalised maps [batch, channels, height, width], lying as they did."""
        if not self._takes(maps):
            return super().forward(maps)
        if self.training:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        return BatchNormByPixel.apply(maps, self.weight, self.bias, statistics, self.eps, self.training, self.momentum)

    def _takes(self, maps: Tensor) -> bool:
        if maps.device.type != "cpu" or maps.dtype != self.weight.dtype or torch.compiler.is_compiling() or not lie_by_pixel(maps):
            return False
        # What is refused is left to torch, which says why.
        return maps.shape[1] == self.num_features < maps.numel()


class BatchNormByPixel(torch.autograd.Function):
    """`normalise` and its gradient."""

    @staticmethod
    def forward(
        ctx, maps: Tensor, weight: Tensor, bias: Tensor, statistics: Statistics, eps: float, training: bool, momentum: float
    ) -> Tensor:
        outputs, of_maps = normalise(maps, weight, bias, statistics, eps, training=training, momentum=momentum)
        ctx.save_for_backward(maps, weight, *(of_maps if training else statistics))
        ctx.eps, ctx.training = eps, training
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, *statistics = ctx.saved_tensors
        grads = normalise_backward(outputs_grad, maps, weight, tuple(statistics), ctx.eps, training=ctx.training)
        return *grads, None, None, None, None


def normalise_by_pixel(model: nn.Module) -> None:
    """Have the model's batch norms take maps that lie by pixel, in place."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats and module.momentum is not None:
            model.set_submodule(name, PixelBatchNorm2d(module))
