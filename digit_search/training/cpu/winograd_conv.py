"""Convolutions on small maps as matrix products: the same function with a fraction of the multiplications.

For 28x28 digits the layers of ResNet18 have maps of 7x7, 4x4, 2x2 and 1x1 pixels. There a padded 3x3 kernel often meets padding: on a 1x1
map only its centre tap ever meets a pixel, on a 2x2 map 16 of the 36 pairs of tap and output do. The library multiplies all pairs.
`SmallMapConv2d` leaves out the products with padding. They are zero, so outputs and gradients differ from the library's only by rounding.
There are two methods:

One matrix product, if there is one output pixel or if the kernel has one tap: pixels [batch, in] by taps [in, out].

Winograd's minimal filtering, for 3x3 kernels (winograd_filters.py): a batch of products, fewer than there are pairs of tap and output.

All tensors between these layers are in HWNC order (batchnorm.py), because a transform along an axis is then a sum of long rows.
"""

import itertools
import math
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from digit_search.training.cpu.matmul_backend import fast_products
from digit_search.training.cpu.winograd_filters import WinogradFilter, has_winograd_filter, winograd_filter
from digit_search.training.cpu.winograd_transforms import transform

LARGEST_ONE_TAP_OUTPUT = 4
"""Pixels per side. On larger maps the library is as fast for convolutions with one tap."""


def active_taps(map_size: int, kernel: int, stride: int, padding: int) -> list[int]:
    """Which taps along one axis ever meet the map."""
    starts = range(-padding, map_size + padding - kernel + 1, stride)
    return [tap for tap in range(kernel) if any(0 <= start + tap < map_size for start in starts)]


def is_one_product(map_size: int, kernel: int, stride: int, padding: int) -> bool:
    """Whether the convolution is one matrix product: it has one tap, or one output pixel that all pixels of the map contribute to."""
    output_size = (map_size + 2 * padding - kernel) // stride + 1
    if kernel == 1:
        return padding == 0 and output_size <= LARGEST_ONE_TAP_OUTPUT
    return output_size == 1 and len(active_taps(map_size, kernel, stride, padding)) == map_size


class SmallMapConv2d(nn.Module):
    """A square Conv2d without bias that leaves out the products with padding on maps of one size.

    Maps of another size, on another device or under autocast go through the library's convolution, with the same weight and gradients.
    In a state_dict it looks like a Conv2d: one entry, `weight`, [out, in, kernel, kernel].

    Idle taps have a gradient of exactly zero, and Adam without weight decay does not change them. As a parameter without a gradient the
    optimizer skips them: 7 million of the 11.2 million weights of ResNet18 need no update.

    Attributes:
        taps: the taps that meet the map, row by row, [active, in, out].
        idle_taps: the taps that only ever meet padding, [idle, in, out].
        decays_idle_taps: gives the idle taps a gradient of zero instead of none, so that an optimizer applies weight decay to them.
    """

    def __init__(self, conv: nn.Conv2d, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        self.decays_idle_taps = False
        active = active_taps(map_size, self.kernel, self.stride, self.padding)
        positions = list(itertools.product(range(self.kernel), repeat=2))
        self.active = [index for index, (row, column) in enumerate(positions) if row in active and column in active]
        self.idle = [index for index in range(len(positions)) if index not in self.active]
        taps, idle_taps = self.split_weight(conv.weight)
        self.taps, self.idle_taps = nn.Parameter(taps.contiguous()), nn.Parameter(idle_taps.contiguous())
        self.register_state_dict_post_hook(_save_as_weight)
        self.register_load_state_dict_pre_hook(_load_from_weight)

    @property
    def weight(self) -> Tensor:
        """A copy of the weight as torchvision has it, [out, in, kernel, kernel]; gradients pass through it."""
        return self.join_taps(self.taps, self.idle_taps)

    def join_taps(self, taps: Tensor, idle_taps: Tensor) -> Tensor:
        """Tensors shaped like `taps` and `idle_taps` as one tensor [out, in, kernel, kernel], differentiable."""
        order = torch.tensor(self.active + self.idle, device=taps.device).argsort()
        return torch.cat([taps, idle_taps])[order].unflatten(0, (self.kernel, self.kernel)).permute(3, 2, 0, 1)

    @torch.no_grad()
    def join_taps_by_copy(self, taps: Tensor, idle_taps: Tensor) -> Tensor:
        """`join_taps` without a gradient. `cat` and indexing would copy twice: that takes six times as long, after every epoch."""
        by_tap = taps.new_empty(self.kernel**2, *taps.shape[1:])
        by_tap[self.active], by_tap[self.idle] = taps, idle_taps
        return by_tap.unflatten(0, (self.kernel, self.kernel)).permute(3, 2, 0, 1)

    def split_weight(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `join_taps`; the results are copies, without a gradient."""
        by_tap = weight.detach().permute(2, 3, 1, 0).flatten(0, 1)
        return by_tap[self.active], by_tap[self.idle]

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolution of maps [batch, in, height, width]."""
        if not self._is_small_map(maps):
            return F.conv2d(maps, self.weight, stride=self.stride, padding=self.padding)
        uses_winograd = has_winograd_filter(self.kernel, self.stride, self.map_size)
        outputs = self._filter(maps) if uses_winograd else self._multiply(maps)
        if torch.compiler.is_compiling():
            # A compiled model uses torch's batch norm, which does not support HWNC.
            outputs = outputs.contiguous(memory_format=torch.channels_last)
        # The sum of an empty slice adds nothing, and its gradient is zero for every idle tap.
        return outputs + self.idle_taps[:0].sum() if self.decays_idle_taps else outputs

    def _is_small_map(self, maps: Tensor) -> bool:
        fits = maps.dim() == 4 and maps.shape[2:] == (self.map_size, self.map_size)
        return fits and maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _filter(self, maps: Tensor) -> Tensor:
        pixels = maps.permute(2, 3, 0, 1).contiguous()
        outputs: Tensor = WinogradConvolution.apply(pixels, self.taps, winograd_filter(self.map_size, self.stride, pixels.dtype))
        return outputs.permute(2, 3, 0, 1)

    def _multiply(self, maps: Tensor) -> Tensor:
        matrix = self.taps.flatten(0, 1)
        if self.kernel > 1:
            outputs: Tensor = MatrixProduct.apply(maps.permute(0, 2, 3, 1).flatten(1), matrix)
            return outputs.view(len(maps), -1, 1, 1)
        outputs = MatrixProduct.apply(maps.permute(2, 3, 0, 1)[:: self.stride, :: self.stride], matrix)
        return outputs.permute(2, 3, 0, 1)


def _save_as_weight(conv: SmallMapConv2d, state: MutableMapping[str, Any], prefix: str, _: object) -> None:
    """The hook that makes a state_dict torchvision's."""
    state[prefix + "weight"] = conv.join_taps_by_copy(state.pop(prefix + "taps"), state.pop(prefix + "idle_taps"))


def _load_from_weight(
    conv: SmallMapConv2d,
    state: MutableMapping[str, Any],
    prefix: str,
    _: object,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    errors: list[str],
) -> None:
    """The hook that takes torchvision's state_dict apart. What does not fit is reported, and the conv's own taps are kept."""
    weight = state.pop(prefix + "weight", None)
    unexpected_keys.extend(key for key in state if strict and key.startswith(prefix))
    shape = (conv.taps.shape[2], conv.taps.shape[1], conv.kernel, conv.kernel)
    taps, idle_taps = conv.taps.detach(), conv.idle_taps.detach()
    if weight is None:
        missing_keys.append(prefix + "weight")
    elif weight.shape != shape:
        errors.append(f"size mismatch for {prefix}weight: expected {shape}, found {tuple(weight.shape)}")
    else:
        taps, idle_taps = conv.split_weight(weight)
    state[prefix + "taps"], state[prefix + "idle_taps"] = taps, idle_taps


class MatrixProduct(torch.autograd.Function):
    """The product [..., out] of pixels [..., in] by a matrix [in, out]."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, matrix: Tensor) -> Tensor:
        rows = pixels.reshape(-1, len(matrix))
        ctx.save_for_backward(rows, matrix)
        ctx.shape = pixels.shape
        with fast_products():
            return torch.mm(rows, matrix).view(*pixels.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs_grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, matrix = ctx.saved_tensors
        rows_grad = outputs_grad.reshape(-1, matrix.shape[1])
        with fast_products():
            return torch.mm(rows_grad, matrix.t()).view(ctx.shape), torch.mm(rows.t(), rows_grad)


class WinogradConvolution(torch.autograd.Function):
    """The 3x3 convolution, [row, column, batch, out], of pixels [row, column, batch, in] by taps [9, in, out].

    In the terms of Lavin and Gray: the pixels and the taps are transformed, multiplied as a batch of matrices [batch, in] by [in, out], one
    for each product of the filter, and the products are transformed to outputs. The gradients use the transposed transforms.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, taps: Tensor, matrices: WinogradFilter) -> Tensor:
        size, _, batch, num_in = pixels.shape
        num_out = taps.shape[2]
        pixel_sums = transform(matrices.pixels, pixels, (-1, batch, num_in))
        tap_sums = transform(matrices.taps, taps, (-1, num_in, num_out))
        with fast_products():
            products = torch.bmm(pixel_sums, tap_sums)
        ctx.save_for_backward(pixel_sums, tap_sums)
        ctx.matrices, ctx.size = matrices, size
        output_size = math.isqrt(math.prod(len(matrix) for matrix in matrices.outputs))
        return transform(matrices.outputs, products, (output_size, output_size, batch, num_out))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs_grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (pixel_sums, tap_sums), matrices = ctx.saved_tensors, ctx.matrices
        _, batch, num_in = pixel_sums.shape
        num_out = tap_sums.shape[2]
        products_grad = transform(matrices.outputs, outputs_grad.contiguous(), (-1, batch, num_out), transposed=True)
        with fast_products():
            pixel_sums_grad = torch.bmm(products_grad, tap_sums.mT)
            tap_sums_grad = torch.bmm(pixel_sums.mT, products_grad)
        pixels_grad = transform(matrices.pixels, pixel_sums_grad, (ctx.size, ctx.size, batch, num_in), transposed=True)
        return pixels_grad, transform(matrices.taps, tap_sums_grad, (-1, num_in, num_out), transposed=True), None
