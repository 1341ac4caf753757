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


def normalise(maps: Tensor, weight: Tensor, bias: Tensor, *statistics_and_setting) -> tuple[Tensor, Tensor, Tensor]:
    """torch's batch norm of maps that lie by pixel, for an autograd function: its output must be no view, or ReLU could not overwrite it.

    Args:
        maps: [batch, channels, height, width].
        weight: [channels].
        bias: [channels].
        statistics_and_setting: running mean and variance [channels], whether training, momentum and epsilon.

    Returns:
        The outputs, lying by pixel too, and what torch's batch norm keeps of a batch for the gradient; in evaluation that is empty.
    """
    *statistics, training, momentum, eps = statistics_and_setting
    outputs = torch.empty_like(maps)
    of_batch = [weight.new_empty(len(weight) if training else 0) for _ in range(2)]
    out = as_one_image(outputs), *of_batch
    torch.native_batch_norm(as_one_image(maps), weight, bias, *statistics, training, momentum, eps, out=out)
    return outputs, *of_batch


def normalise_backward(outputs_grad: Tensor, maps: Tensor, *weight_statistics_and_setting) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of maps, which lie by pixel, weight and bias.

    Args:
        outputs_grad: lying as it may.
        maps: what was normalised.
        weight_statistics_and_setting: weight, running mean and variance, what was kept of the batch (either pair may be None), whether
            training, and epsilon.
    """
    images = as_one_image(by_pixel(outputs_grad)), as_one_image(maps)
    wanted = [True, True, True]
    image_grad, *grads = torch.ops.aten.native_batch_norm_backward(*images, *weight_statistics_and_setting, wanted)
    return from_one_image(image_grad, maps.shape), *grads


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
        return BatchNormByPixel.apply(maps, self.weight, self.bias, *statistics, self.training, self.momentum, self.eps)

    def _takes(self, maps: Tensor) -> bool:
        if maps.device.type != "cpu" or maps.dtype != self.weight.dtype or torch.compiler.is_compiling() or not lie_by_pixel(maps):
            return False
        # What is refused is left to torch, which says why.
        return maps.shape[1] == self.num_features < maps.numel()


class BatchNormByPixel(torch.autograd.Function):
    """`normalise` and its gradient."""

    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor, bias: Tensor, *statistics_and_setting) -> Tensor:
        outputs, *of_batch = normalise(maps, weight, bias, *statistics_and_setting)
        *statistics, ctx.training, _, ctx.eps = statistics_and_setting
        ctx.save_for_backward(maps, weight, *(of_batch if ctx.training else statistics))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, *kept = ctx.saved_tensors
        statistics = (None, None, *kept) if ctx.training else (*kept, None, None)
        grads = normalise_backward(outputs_grad, maps, weight, *statistics, ctx.training, ctx.eps)
        return *grads, None, None, None, None, None


def normalise_by_pixel(model: nn.Module) -> None:
    """Have the model's batch norms take maps that lie by pixel, in place."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats and module.momentum is not None:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, PixelBatchNorm2d(module))
