"""Convolutions on small maps as matrix products: the same function with a fraction of the multiplications.

On 28x28 digits ResNet18's layers make maps of 7x7, 4x4, 2x2 and 1x1 pixels. There a padded 3x3 kernel often meets padding: on a 1x1 map
only its centre tap ever meets a pixel, on a 2x2 map 16 of the 36 pairs of tap and output do. The library multiplies all of them.
`lower_small_maps` puts a `SmallMapConv2d` in the place of those convolutions, which leaves out the products with padding. They are zeros,
so outputs and gradients differ from the library's by rounding alone. It multiplies in one of two ways:

By one product, where there is one output pixel, or a kernel of one tap: the taps lie as matrices [in, out], and so the pixels of all
images, and the taps that they meet, are a matrix each.

By shared products, for 3x3: sums of pixels times sums of taps, each product of use to several outputs. On a 2x2 map, along one axis, the
pixels x0, x1 and the taps w0, w1, w2 give

    y0 = w1 x0 + w2 x1 = w1 (x0 + x1) + (w2 - w1) x1
    y1 = w0 x0 + w1 x1 = w1 (x0 + x1) + (w0 - w1) x0

so three products do the work of four, and along both axes nine the work of sixteen. For more pixels Winograd's minimal filtering finds
the sums: six products an axis on a 4x4 map (36 do the work of 100), nine and ten on a 7x7 map (90 the work of 361). With stride 2 every
other pixel only ever meets w1, and the pixels between only w0 and w2: together eight products an axis from 7x7 to 4x4 (64 do the work of
100), and five from 4x4 to 2x2 (as many as there are pairs, but all in one batch). Against float64 the rounding error is 1e-6 (2x2 and 4x4)
to 3e-6 (7x7) of the result, the library's 5e-7.

From the first to the last of these layers the maps lie pixel by pixel in memory (pixel_maps.py), because a sum along an axis is then one
of long rows (axis_sums.py).

Taps that never meet the map have a gradient of exactly zero, and Adam without weight decay leaves them as they are. They are a parameter
of their own that gets no gradient, so that the optimizer passes over it: 7 of the model's 11.2 million weights need no update.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from digit_search.training.cpu.batchnorm import normalise_by_pixel
from digit_search.training.cpu.matmul_backend import fast_products
from digit_search.training.cpu.stem import pool_before_norm
from digit_search.training.cpu.winograd_transforms import sum_up

LARGEST_PICKED_OUTPUT = 4
"""Pixels a side, of convolutions of one tap. On larger maps the library is as fast."""

PIXEL_SUMS = ((1, 0), (1, 1), (0, 1))  # x0, x0 + x1, x1
TAP_DIFFERENCES = ((1, -1, 0), (0, 1, 0), (0, -1, 1))  # w0 - w1, w1, w2 - w1
PRODUCT_SUMS = ((0, 1, 1), (1, 1, 0))  # y0, y1

FOUR = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
SEVEN = (0.244, -0.244, 0.659, -0.659, 1.142, -1.142, 2.359, -2.359)
SEVEN_WITH_PAIR = (0.342, -0.342, 0.877, -0.877, 1.59, -1.59, 1j)
"""Points for so many pixels; among those tried the ones with the smallest rounding errors. 1j stands for itself and -1j."""
POINTS = {4: (FOUR, FOUR), 7: (SEVEN, SEVEN_WITH_PAIR)}
"""By map size, for the rows and the columns. SEVEN along both axes would be 81 products, with an error of 1e-5."""
STRIDED = {4: (0, 1), 7: (0, 1, -1)}
"""Points for stride 2, by map size."""

PAIR_FACTORS = ((1, 0), (0, 1), (1, 1))  # of u + iv: u, v, u + v
PAIR_VALUES = ((1, -1, 0), (-1, -1, 1))  # from their products with those of p + iq: up - vq, (u + v)(p + q) - up - vq


def active_taps(map_size: int, kernel: int, stride: int, padding: int) -> list[int]:
    """Which taps along one axis ever meet the map."""
    starts = range(-padding, map_size + padding - kernel + 1, stride)
    return [tap for tap in range(kernel) if any(0 <= start + tap < map_size for start in starts)]


def is_one_product(map_size: int, kernel: int, stride: int, padding: int) -> bool:
    """Whether the convolution is a single matrix product of pixels as they lie: of one output with all of them, or of one tap."""
    output_size = (map_size + 2 * padding - kernel) // stride + 1
    if kernel == 1:
        return padding == 0 and output_size <= LARGEST_PICKED_OUTPUT
    return output_size == 1 and len(active_taps(map_size, kernel, stride, padding)) == map_size


class SmallMapConv2d(nn.Module):
    """A Conv2d without bias, square in all respects, that leaves out the products with padding on maps of one size.

    Maps of another size, on another device or under autocast go through the library's convolution, with the same weight and gradients.
    In a state_dict it is a Conv2d: one entry, `weight`, [out, in, kernel, kernel].

    Attributes:
        taps: the taps that meet the map, row by row, [active, in, out].
        idle_taps: those that only ever meet padding, [idle, in, out].
        decays_idle_taps: gives the idle taps a gradient of zero instead of none, so that an optimizer applies weight decay to them.
    """

    def __init__(self, conv: nn.Conv2d, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        self.decays_idle_taps = False
        active = active_taps(map_size, self.kernel, self.stride, self.padding)
        positions = list(itertools.product(range(self.kernel), repeat=2))
        self.active = [index for index, (row, column) in enumerate(positions) if row in active and column in active]
        self.idle = [index for index in range(len(positions)) if index not in self.active]
        by_tap = conv.weight.detach().permute(2, 3, 1, 0).flatten(0, 1)
        self.taps = nn.Parameter(by_tap[self.active].contiguous())
        self.idle_taps = nn.Parameter(by_tap[self.idle].contiguous())

    @property
    def weight(self) -> Tensor:
        """A copy of the weight as torchvision has it, [out, in, kernel, kernel]; gradients pass through it."""
        return self.assemble(self.taps, self.idle_taps)

    def assemble(self, taps: Tensor, idle_taps: Tensor) -> Tensor:
        """Lay tensors shaped like `taps` and `idle_taps` out as [out, in, kernel, kernel]."""
        order = torch.tensor(self.active + self.idle, device=taps.device).argsort()
        return torch.cat([taps, idle_taps])[order].unflatten(0, (self.kernel, self.kernel)).permute(3, 2, 0, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolution of maps [batch, in, height, width]."""
        if not self._lowers(maps):
            return F.conv2d(maps, self.weight, stride=self.stride, padding=self.padding)
        outputs = self._share_products(maps) if shares_products(self.kernel, self.stride, self.map_size) else self._multiply_once(maps)
        if torch.compiler.is_compiling():
            # Batch norm is torch's own then, and knows the usual orders alone.
            outputs = outputs.contiguous(memory_format=torch.channels_last)
        # The sum of an empty slice adds nothing, and its gradient is a zero for every idle tap.
        return outputs + self.idle_taps[:0].sum() if self.decays_idle_taps else outputs

    def _lowers(self, maps: Tensor) -> bool:
        fits = maps.dim() == 4 and maps.shape[2:] == (self.map_size, self.map_size)
        return fits and maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _share_products(self, maps: Tensor) -> Tensor:
        pixels = maps.permute(2, 3, 0, 1).contiguous()
        outputs = MultiplyShared.apply(pixels, self.taps, shared_products(self.map_size, self.stride, pixels.dtype))
        return outputs.permute(2, 3, 0, 1)

    def _multiply_once(self, maps: Tensor) -> Tensor:
        matrix = self.taps.flatten(0, 1)
        if self.kernel > 1:
            return Multiply.apply(maps.permute(0, 2, 3, 1).flatten(1), matrix).view(len(maps), -1, 1, 1)
        met = maps.permute(2, 3, 0, 1)[:: self.stride, :: self.stride]
        return Multiply.apply(met, matrix).permute(2, 3, 0, 1)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight if keep_vars else self.lay_out(self.taps, self.idle_taps)

    @torch.no_grad()
    def lay_out(self, taps: Tensor, idle_taps: Tensor) -> Tensor:
        """As `assemble`, but with memory that lies tap by tap: transposing it takes six times as long, after every epoch."""
        by_tap = taps.new_empty(self.kernel**2, *taps.shape[1:])
        by_tap[self.active], by_tap[self.idle] = taps, idle_taps
        return by_tap.unflatten(0, (self.kernel, self.kernel)).permute(3, 2, 0, 1)

    def take_apart(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `assemble`, by copies."""
        by_tap = weight.detach().permute(2, 3, 1, 0).flatten(0, 1)
        return by_tap[self.active], by_tap[self.idle]

    @torch.no_grad()
    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs) -> None:
        unexpected_keys.extend(key for key in state_dict if strict and key.startswith(prefix) and key != prefix + "weight")
        weight = state_dict.get(prefix + "weight")
        shape = (self.taps.shape[2], self.taps.shape[1], self.kernel, self.kernel)
        if weight is None:
            missing_keys.append(prefix + "weight")
        elif weight.shape != shape:
            error_msgs.append(f"size mismatch for {prefix}weight: expected {shape}, found {tuple(weight.shape)}")
        else:
            taps, idle_taps = self.take_apart(weight)
            self.taps.copy_(taps)
            self.idle_taps.copy_(idle_taps)


class Multiply(torch.autograd.Function):
    """The product [..., out] of pixels [..., in] by a matrix [in, out]."""

    @staticmethod
    def forward(ctx, pixels: Tensor, matrix: Tensor) -> Tensor:
        rows = pixels.reshape(-1, len(matrix))
        ctx.save_for_backward(rows, matrix)
        ctx.shape = pixels.shape
        with fast_products():
            return torch.mm(rows, matrix).view(*pixels.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, matrix = ctx.saved_tensors
        rows_grad = outputs_grad.reshape(-1, matrix.shape[1])
        with fast_products():
            return torch.mm(rows_grad, matrix.t()).view(ctx.shape), torch.mm(rows.t(), rows_grad)


class Filter(NamedTuple):
    """Matrices of sums along one axis, between which a convolution of three taps is so many separate products."""

    pixels: Tensor
    """[products, pixels]"""
    taps: Tensor
    """[products, 3]"""
    outputs: Tensor
    """[outputs, products]"""


class SharedProducts(NamedTuple):
    """Both axes of a 3x3 convolution. Each is one matrix for both axes together, or one for the rows and one for the columns."""

    pixels: tuple[Tensor, ...]
    taps: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def shares_products(kernel: int, stride: int, map_size: int) -> bool:
    """Whether there are filters for this convolution."""
    return kernel == 3 and (map_size in (2, *POINTS) if stride == 1 else stride == 2 and map_size in STRIDED)


@functools.cache
def shared_products(map_size: int, stride: int, dtype: torch.dtype) -> SharedProducts:
    """The filters for maps of this size, computed in float64."""
    if stride == 2:
        rows = columns = strided_filter(map_size, STRIDED[map_size])
    elif map_size == 2:
        rows = columns = Filter(*(torch.tensor(matrix, dtype=torch.float64) for matrix in (PIXEL_SUMS, TAP_DIFFERENCES, PRODUCT_SUMS)))
    else:
        rows, columns = map(minimal_filter, POINTS[map_size])
    axes = zip(rows, columns, strict=True)
    # So few sums are taken faster along both axes at once.
    together = [(torch.kron(*pair),) for pair in axes] if map_size == 2 else axes
    return SharedProducts(*(tuple(matrix.to(dtype) for matrix in matrices) for matrices in together))


def minimal_filter(points: Sequence[complex]) -> Filter:
    """The filter for n output pixels, from n + 1 points and infinity; a pair of conjugates counts as two points.

    Two polynomials multiplied by way of their values at the points, transposed (Winograd 1980; Lavin and Gray, arXiv:1509.09308). At a
    real point and at infinity that is one product. At a pair, where the two values are conjugates, it is three: (u + iv)(p + iq) is
    up - vq + i ((u + v)(p + q) - up - vq).
    """
    one = ((1,),)
    of_each = [(PAIR_FACTORS, PAIR_VALUES) if isinstance(point, complex) else (one, one) for point in points] + [(one, one)]
    blocks = ([torch.tensor(block, dtype=torch.float64) for block in column] for column in zip(*of_each, strict=True))
    factors, values = (torch.block_diag(*column) for column in blocks)
    num_values = len(values)
    coefficients = torch.linalg.solve(_values(points, num_values), values)
    coefficients[coefficients.abs() < 1e-12] = 0  # what rounding leaves of a zero would be multiplied by
    # The first and the last pixel are padding.
    return Filter(coefficients.T[:, 1:-1], factors @ _values(points, 3), (factors @ _values(points, num_values - 2)).T)


def strided_filter(map_size: int, points: Sequence[float]) -> Filter:
    """The filter for stride 2, where output `i` is w0 x[2i - 1] + w1 x[2i] + w2 x[2i + 1].

    The pixels x[2i] take a product each. Of the others, x1, x3 and so on, the outputs are the coefficients of the polynomial that they are
    the coefficients of, times w2 + w0 z: found from its values at the points and at infinity, as many as it has coefficients.
    """
    num_outputs, num_between = (map_size + 1) // 2, map_size // 2
    pixels = torch.zeros(num_outputs + len(points) + 1, map_size, dtype=torch.float64)
    pixels[:num_outputs, ::2] = torch.eye(num_outputs, dtype=torch.float64)
    pixels[num_outputs:, 1::2] = _values(points, num_between)
    taps = torch.zeros(len(pixels), 3, dtype=torch.float64)
    taps[:num_outputs, 1] = 1
    taps[num_outputs:, [2, 0]] = _values(points, 2)
    coefficients = torch.linalg.inv(_values(points, num_between + 1))[:num_outputs]
    return Filter(pixels, taps, torch.cat([torch.eye(num_outputs, dtype=torch.float64), coefficients], dim=1))


def _values(points: Sequence[complex], num_coefficients: int) -> Tensor:
    """From a polynomial's coefficients to its values at the points, and to its leading coefficient, the value at infinity.

    The value at a complex point is two rows, its real and its imaginary part.
    """
    rows = []
    for point in points:
        powers = [complex(point) ** power for power in range(num_coefficients)]
        rows.append([power.real for power in powers])
        if isinstance(point, complex):
            rows.append([power.imag for power in powers])
    rows.append([0.0] * (num_coefficients - 1) + [1.0])
    return torch.tensor(rows, dtype=torch.float64)


class MultiplyShared(torch.autograd.Function):
    """The 3x3 convolution, [row, column, batch, out], of pixels [row, column, batch, in] by taps [9, in, out].

    In this order of the pixels a sum along either axis is one matrix product for the whole batch.
    """

    @staticmethod
    def forward(ctx, pixels: Tensor, taps: Tensor, shared: SharedProducts) -> Tensor:
        size, _, batch, num_in = pixels.shape
        num_out = taps.shape[2]
        factors = sum_up(shared.pixels, pixels, (-1, batch, num_in))
        matrices = sum_up(shared.taps, taps, (-1, num_in, num_out))
        with fast_products():
            products = torch.bmm(factors, matrices)
        ctx.save_for_backward(factors, matrices)
        ctx.shared, ctx.size = shared, size
        output_size = math.isqrt(math.prod(len(matrix) for matrix in shared.outputs))
        return sum_up(shared.outputs, products, (output_size, output_size, batch, num_out))

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (factors, matrices), shared = ctx.saved_tensors, ctx.shared
        _, batch, num_in = factors.shape
        num_out = matrices.shape[2]
        products_grad = sum_up(shared.outputs, outputs_grad.contiguous(), (-1, batch, num_out), transposed=True)
        with fast_products():
            factors_grad = torch.bmm(products_grad, matrices.mT)
            matrices_grad = torch.bmm(factors.mT, products_grad)
        pixels_grad = sum_up(shared.pixels, factors_grad, (ctx.size, ctx.size, batch, num_in), transposed=True)
        return pixels_grad, sum_up(shared.taps, matrices_grad, (-1, num_in, num_out), transposed=True), None


def lower_small_maps(model: nn.Module, image_size: int = 28) -> nn.Module:
    """Make a torchvision ResNet fast on the CPU, in place, for square images of `image_size` pixels a side.

    Convolutions on small maps become products over the taps that count; the rest goes channels_last. The model stays the
    same function for images of every size, and its state_dict keeps keys and shapes.
    """
    for name, map_size in _maps_to_lower(model, image_size).items():
        model.set_submodule(name, SmallMapConv2d(model.get_submodule(name), map_size))
    pool_before_norm(model)
    normalise_by_pixel(model)
    return model.to(memory_format=torch.channels_last)


def _maps_to_lower(model: nn.Module, image_size: int) -> dict[str, int]:
    """Pass a blank image through; return the size of the map that enters each convolution to lower, by the convolution's name."""
    sizes: dict[str, int] = {}

    def note(name: str, inputs: tuple[Tensor]) -> None:
        conv, map_size = model.get_submodule(name), inputs[0].shape[2]
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        if shares_products(kernel, stride, map_size) or is_one_product(map_size, kernel, stride, padding):
            sizes[name] = map_size

    hooks = [
        module.register_forward_hook(lambda _, inputs, __, name=name: note(name, inputs))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and _is_lowerable(module)
    ]
    was_training = model.training
    with torch.no_grad():
        model.eval()(model.conv1.weight.new_zeros(1, model.conv1.in_channels, image_size, image_size))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return sizes


def _is_lowerable(conv: nn.Conv2d) -> bool:
    plain = conv.bias is None and conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and (conv.kernel_size, conv.padding) in {((3, 3), (1, 1)), ((1, 1), (0, 0))}


def optimizer_parameters(model: nn.Module, *, weight_decay: float) -> list[Tensor]:
    """Return what Adam must be given. With weight decay the idle taps get a gradient from now on, of zero, and decay like the others."""
    for module in model.modules():
        if isinstance(module, SmallMapConv2d):
            module.decays_idle_taps = weight_decay != 0
    return list(model.parameters())


def changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """By name, the floating-point tensors that training changes: parameters, less idle taps without decay, and batch norm's statistics."""
    idle = {id(module.idle_taps) for module in model.modules() if isinstance(module, SmallMapConv2d) and not module.decays_idle_taps}
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point() and id(tensor) not in idle}
