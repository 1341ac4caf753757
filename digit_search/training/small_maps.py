"""Convolutions on small maps as matrix products: the same function with a fraction of the multiplications.

On 28x28 digits ResNet18's layers make maps of 7x7, 4x4, 2x2 and 1x1 pixels. There a padded 3x3 kernel often meets padding: on a 1x1 map
only its centre tap ever meets a pixel, on a 2x2 map 16 of the 36 pairs of tap and output do. The library multiplies all of them.
`lower_small_maps` puts a `SmallMapConv2d` in the place of those convolutions, which leaves out the products with padding. They are zeros,
so outputs and gradients differ from the library's by rounding alone. It multiplies in one of two ways:

By runs. An output pixel is a sum over the kernel's rows. In each row the taps on the map, and the pixels under them, are two runs without
gaps in memory, as pixels lie channels-last and taps lie as matrices [in, out]. One matrix product serves a run, reading both in place.

By shared products, for 3x3, stride 1: sums of pixels times sums of taps, each product of use to several outputs. On a 2x2 map, along one
axis, the pixels x0, x1 and the taps w0, w1, w2 give

    y0 = w1 x0 + w2 x1 = w1 (x0 + x1) + (w2 - w1) x1
    y1 = w0 x0 + w1 x1 = w1 (x0 + x1) + (w0 - w1) x0

so three products do the work of four, and along both axes nine the work of sixteen. For more pixels Winograd's minimal filtering finds
the sums: six products an axis on a 4x4 map (36 do the work of 100), nine and eleven on a 7x7 map (99 the work of 361). Sums of pixels and
of products are taken along one axis after the other, and the products of a row at a time, so that they stay in the core's own cache.
Against float64 the rounding error is 1e-6 (2x2 and 4x4) to 3e-6 (7x7) of the result, the library's 5e-7.

Taps that never meet the map have a gradient of exactly zero, and Adam without weight decay leaves them as they are. They are a parameter
of their own that gets no gradient, so that the optimizer passes over it: 7 of the model's 11.2 million weights need no update.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from digit_search.training.stem import pool_before_norm

LARGEST_LOWERED_OUTPUT = 4
"""Pixels a side, of convolutions that share no products. On larger maps padding is rare and the library as fast."""

PIXEL_SUMS = ((1, 0), (1, 1), (0, 1))  # x0, x0 + x1, x1
TAP_DIFFERENCES = ((1, -1, 0), (0, 1, 0), (0, -1, 1))  # w0 - w1, w1, w2 - w1
PRODUCT_SUMS = ((0, 1, 1), (1, 1, 0))  # y0, y1

FOUR, THREE = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2), (0, 1, -1, 1 / 2)
SEVEN = (0.244, -0.244, 0.659, -0.659, 1.142, -1.142, 2.359, -2.359)
"""Points for so many pixels; among those tried the ones with the smallest rounding errors."""
PIECES = {4: ((FOUR,), (FOUR,)), 7: ((SEVEN,), (FOUR, THREE))}
"""By map size, for the rows and the columns. SEVEN along both axes would be fewer products still, with an error of 1e-5."""


class Overlap(NamedTuple):
    """Along one axis and for one output pixel: the taps from `tap` on that lie on the map, as many pixels from `pixel` on."""

    tap: int
    pixel: int
    length: int


class Run(NamedTuple):
    """For one output pixel: successive taps and the successive pixels under them, numbered row by row."""

    output: int
    tap: int
    pixel: int
    length: int


def overlaps(map_size: int, kernel: int, stride: int, padding: int) -> list[Overlap]:
    """Return, for every output pixel along one axis, the part of the kernel that lies on the map."""
    starts = range(-padding, map_size + padding - kernel + 1, stride)
    spans = [(max(0, -start), min(kernel, map_size - start)) for start in starts]
    return [Overlap(first, start + first, last - first) for start, (first, last) in zip(starts, spans, strict=True)]


def runs_of(axis: list[Overlap], map_size: int, active: range) -> list[Run]:
    """Return the runs of all output pixels; those that go on in the next row of map and kernel alike are joined.

    Args:
        axis: the overlaps along either axis; map and kernel are square.
        active: the rows, and columns, of the kernel among which the runs number the taps.
    """
    runs: list[Run] = []
    for output, (rows, columns) in enumerate(itertools.product(axis, repeat=2)):
        for row in range(rows.length):
            tap = (rows.tap + row - active.start) * len(active) + columns.tap - active.start
            pixel = (rows.pixel + row) * map_size + columns.pixel
            last = runs[-1] if runs else Run(-1, 0, 0, 0)
            if last == (output, tap - last.length, pixel - last.length, last.length):
                runs[-1] = last._replace(length=last.length + columns.length)
            else:
                runs.append(Run(output, tap, pixel, columns.length))
    return runs


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
        axis = overlaps(map_size, self.kernel, self.stride, self.padding)
        self.output_size = len(axis)
        active = range(min(part.tap for part in axis), max(part.tap + part.length for part in axis))
        self.runs = tuple(runs_of(axis, map_size, active))
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
        outputs = self._share_products(maps) if shares_products(self.kernel, self.stride, self.map_size) else self._multiply_runs(maps)
        # The sum of an empty slice adds nothing, and its gradient is a zero for every idle tap.
        return outputs + self.idle_taps[:0].sum() if self.decays_idle_taps else outputs

    def _lowers(self, maps: Tensor) -> bool:
        fits = maps.dim() == 4 and maps.shape[2:] == (self.map_size, self.map_size)
        return fits and maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _share_products(self, maps: Tensor) -> Tensor:
        pixels = maps.permute(2, 3, 0, 1).contiguous()
        outputs = MultiplyShared.apply(pixels, self.taps, shared_products(self.map_size, pixels.dtype))
        return outputs.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)

    def _multiply_runs(self, maps: Tensor) -> Tensor:
        pixels, num_out = maps.permute(0, 2, 3, 1).flatten(1), self.taps.shape[2]
        if len(self.runs) == 1:
            # Strides that autograd's gradients have too: where they differ, torch 2.14's batch norm takes 14 times as long backwards.
            return multiply_one_run(pixels, self.taps, self.runs[0]).view(-1, num_out, 1, 1)
        outputs = MultiplyRuns.apply(pixels, self.taps, self.runs, self.output_size**2)
        return outputs.view(-1, self.output_size, self.output_size, num_out).permute(0, 3, 1, 2)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight if keep_vars else self._detached_weight()

    @torch.no_grad()
    def _detached_weight(self) -> Tensor:
        """A copy of the weight whose memory lies tap by tap: transposing it takes six times as long, after every epoch."""
        by_tap = self.taps.new_empty(self.kernel**2, *self.taps.shape[1:])
        by_tap[self.active], by_tap[self.idle] = self.taps, self.idle_taps
        return by_tap.unflatten(0, (self.kernel, self.kernel)).permute(3, 2, 0, 1)

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
            by_tap = weight.detach().permute(2, 3, 1, 0).flatten(0, 1)
            self.taps.copy_(by_tap[self.active])
            self.idle_taps.copy_(by_tap[self.idle])


def multiply_one_run(pixels: Tensor, taps: Tensor, run: Run) -> Tensor:
    """The convolution with a single output pixel, [batch, out], of pixels [batch, pixels x in] by taps [active, in, out]."""
    num_in = taps.shape[1]
    return torch.mm(pixels[:, run.pixel * num_in : (run.pixel + run.length) * num_in], taps.flatten(0, 1))


class Filter(NamedTuple):
    """Matrices of sums along one axis, between which a convolution of three taps is so many separate products."""

    pixels: Tensor
    """[products, pixels]"""
    taps: Tensor
    """[products, 3]"""
    outputs: Tensor
    """[pixels, products]"""


class SharedProducts(NamedTuple):
    """Both axes of a 3x3 convolution with stride 1."""

    rows: Filter
    columns: Filter


def shares_products(kernel: int, stride: int, map_size: int) -> bool:
    """Whether there are filters for this convolution."""
    return (kernel, stride) == (3, 1) and map_size in (2, *PIECES)


@functools.cache
def shared_products(map_size: int, dtype: torch.dtype) -> SharedProducts:
    """The filters for maps of this size, computed in float64."""
    if map_size == 2:
        rows = columns = Filter(*(torch.tensor(matrix, dtype=torch.float64) for matrix in (PIXEL_SUMS, TAP_DIFFERENCES, PRODUCT_SUMS)))
    else:
        rows, columns = map(filter_in_pieces, PIECES[map_size])
    return SharedProducts(*(Filter(*(matrix.to(dtype) for matrix in axis)) for axis in (rows, columns)))


def filter_in_pieces(pieces: Sequence[Sequence[float]]) -> Filter:
    """The filter of one axis: for every piece in turn as many output pixels as it has points, less one."""
    factors, taps, outputs = zip(*map(minimal_filter, pieces), strict=True)
    starts = list(itertools.accumulate((len(output) for output in outputs), initial=0))
    num_pixels = starts.pop()
    aligned = [F.pad(factor, (start, num_pixels + 2 - start - factor.shape[1])) for start, factor in zip(starts, factors, strict=True)]
    # The first and the last pixel are padding.
    return Filter(torch.cat(aligned)[:, 1:-1], torch.cat(taps), torch.block_diag(*outputs))


def minimal_filter(points: Sequence[float]) -> Filter:
    """The filter for `len(points) - 1` output pixels of a three-tap kernel, from one product a point and one at infinity.

    Two polynomials multiplied by way of their values at the points, transposed (Winograd 1980; Lavin and Gray, arXiv:1509.09308).
    """

    def values(num_coefficients: int) -> Tensor:
        """From a polynomial's coefficients to its values at the points, and to its leading coefficient, the value at infinity."""
        infinity = [0.0] * (num_coefficients - 1) + [1.0]
        return torch.tensor([[point**power for power in range(num_coefficients)] for point in points] + [infinity], dtype=torch.float64)

    return Filter(torch.linalg.inv(values(len(points) + 1)).T, values(3), values(len(points) - 1).T)


class MultiplyShared(torch.autograd.Function):
    """The 3x3 convolution with stride 1, [row, column, batch, out], of pixels [row, column, batch, in] by taps [9, in, out].

    In this order of the pixels a sum along either axis is one matrix product for the whole batch.
    """

    @staticmethod
    def forward(ctx, pixels: Tensor, taps: Tensor, shared: SharedProducts) -> Tensor:
        rows, columns = shared
        size, _, batch, num_in = pixels.shape
        num_rows, num_columns, num_out = len(rows.taps), len(columns.taps), taps.shape[2]
        row_pixels = torch.mm(rows.pixels, pixels.flatten(1)).view(num_rows, size, -1)
        row_taps = torch.mm(rows.taps, taps.view(3, -1)).view(num_rows, 3, -1)
        row_outputs = pixels.new_empty(num_rows, size, batch * num_out)
        factors, matrices = pixels.new_empty(num_columns, batch, num_in), taps.new_empty(num_columns, num_in, num_out)
        products = pixels.new_empty(num_columns, batch, num_out)
        for its_pixels, its_taps, its_outputs in zip(row_pixels, row_taps, row_outputs, strict=True):
            torch.mm(columns.pixels, its_pixels, out=factors.flatten(1))
            torch.mm(columns.taps, its_taps, out=matrices.flatten(1))
            torch.bmm(factors, matrices, out=products)
            torch.mm(columns.outputs, products.flatten(1), out=its_outputs)
        ctx.save_for_backward(row_pixels, row_taps)
        ctx.shared, ctx.num_in = shared, num_in
        return torch.mm(rows.outputs, row_outputs.flatten(1)).view(size, size, batch, num_out)

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor, Tensor, None]:
        row_pixels, row_taps = ctx.saved_tensors
        (rows, columns), num_in = ctx.shared, ctx.num_in
        size, _, batch, num_out = outputs_grad.shape
        num_rows, num_columns = len(rows.taps), len(columns.taps)
        row_outputs_grad = torch.mm(rows.outputs.t(), outputs_grad.contiguous().flatten(1)).view(num_rows, size, -1)
        row_pixels_grad, row_taps_grad = torch.empty_like(row_pixels), torch.empty_like(row_taps)
        factors, matrices = row_pixels.new_empty(num_columns, batch, num_in), row_taps.new_empty(num_columns, num_in, num_out)
        factors_grad, matrices_grad = torch.empty_like(factors), torch.empty_like(matrices)
        products_grad = outputs_grad.new_empty(num_columns, batch, num_out)
        values, grads = zip(row_pixels, row_taps, strict=True), zip(row_outputs_grad, row_pixels_grad, row_taps_grad, strict=True)
        for (its_pixels, its_taps), (its_outputs_grad, its_pixels_grad, its_taps_grad) in zip(values, grads, strict=True):
            # Made again, which takes no longer than to read them back from memory.
            torch.mm(columns.pixels, its_pixels, out=factors.flatten(1))
            torch.mm(columns.taps, its_taps, out=matrices.flatten(1))
            torch.mm(columns.outputs.t(), its_outputs_grad, out=products_grad.flatten(1))
            torch.bmm(products_grad, matrices.mT, out=factors_grad)
            torch.bmm(factors.mT, products_grad, out=matrices_grad)
            torch.mm(columns.pixels.t(), factors_grad.flatten(1), out=its_pixels_grad)
            torch.mm(columns.taps.t(), matrices_grad.flatten(1), out=its_taps_grad)
        pixels_grad = torch.mm(rows.pixels.t(), row_pixels_grad.flatten(1)).view(size, size, batch, num_in)
        taps_grad = torch.mm(rows.taps.t(), row_taps_grad.flatten(1)).view(-1, num_in, num_out)
        return pixels_grad, taps_grad, None


class MultiplyRuns(torch.autograd.Function):
    """The convolution, [batch, outputs x out], of pixels [batch, pixels x in] by taps [active, in, out], one product a run.

    Autograd would cut the taps of every run out and fill a gradient of all taps with zeros for each; here all runs add to one.
    """

    @staticmethod
    def forward(ctx, pixels: Tensor, taps: Tensor, runs: tuple[Run, ...], num_outputs: int) -> Tensor:
        ctx.save_for_backward(pixels, taps)
        ctx.runs = runs
        outputs = pixels.new_zeros(len(pixels), num_outputs * taps.shape[2])
        for met, matrix, output in _views(runs, pixels, taps, outputs):
            output.addmm_(met, matrix)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        pixels, taps = ctx.saved_tensors
        pixels_grad, taps_grad = torch.zeros_like(pixels), torch.zeros_like(taps)
        values, grads = _views(ctx.runs, pixels, taps, outputs_grad), _views(ctx.runs, pixels_grad, taps_grad, outputs_grad)
        for (met, matrix, output_grad), (met_grad, matrix_grad, _) in zip(values, grads, strict=True):
            met_grad.addmm_(output_grad, matrix.t())
            matrix_grad.addmm_(met.t(), output_grad)
        return pixels_grad, taps_grad, None, None


def _views(runs: tuple[Run, ...], pixels: Tensor, taps: Tensor, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield for every run, in place, its pixels [batch, length x in], taps [length x in, out] and output [batch, out]."""
    _, num_in, num_out = taps.shape
    matrices = taps.view(-1, num_out)
    for run in runs:
        yield (
            pixels[:, run.pixel * num_in : (run.pixel + run.length) * num_in],
            matrices[run.tap * num_in : (run.tap + run.length) * num_in],
            outputs[:, run.output * num_out : (run.output + 1) * num_out],
        )


def lower_small_maps(model: nn.Module, image_size: int = 28) -> nn.Module:
    """Make a torchvision ResNet fast on the CPU, in place, for square images of `image_size` pixels a side.

    Convolutions on small maps become products over the taps that count; the rest goes channels_last. The model stays the
    same function for images of every size, and its state_dict keeps keys and shapes.
    """
    for name, map_size in _maps_to_lower(model, image_size).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, SmallMapConv2d(model.get_submodule(name), map_size))
    pool_before_norm(model)
    return model.to(memory_format=torch.channels_last)


def _maps_to_lower(model: nn.Module, image_size: int) -> dict[str, int]:
    """Pass a blank image through; return the size of the map that enters each convolution to lower, by the convolution's name."""
    sizes: dict[str, int] = {}

    def note(name: str, inputs: tuple[Tensor], output: Tensor) -> None:
        conv, map_size = model.get_submodule(name), inputs[0].shape[2]
        if output.shape[2] <= LARGEST_LOWERED_OUTPUT or shares_products(conv.kernel_size[0], conv.stride[0], map_size):
            sizes[name] = map_size

    hooks = [
        module.register_forward_hook(lambda _, inputs, output, name=name: note(name, inputs, output))
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


def changing_tensors(model: nn.Module) -> list[Tensor]:
    """Return the floating-point tensors that training changes: parameters, save idle taps that do not decay, and batch-norm statistics."""
    idle = {id(module.idle_taps) for module in model.modules() if isinstance(module, SmallMapConv2d) and not module.decays_idle_taps}
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point() and id(tensor) not in idle]
