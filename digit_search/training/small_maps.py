"""Convolutions on maps of 2x2 and 1x1 as matrix products over the taps that count: the same function, a third of the time.

On 28x28 digits layer3 of ResNet18 works on 2x2 maps and layer4 on 1x1 maps. There a padded 3x3 kernel mostly meets padding: on a 1x1 map
only its centre tap ever touches a pixel, on a 2x2 map 16 of its 36 pairs of tap and position do. The library multiplies all of it.
`lower_small_maps` replaces those convolutions by `SmallMapConv2d`, which leaves out the products with padding. They are zeros, so leaving
them out is exact: outputs and gradients differ from the library's by rounding alone.

Two routes, both on channels-last maps, where every pixel's channels, and the pixels of a row, lie side by side in memory:

`RunProducts`: an output pixel is a sum over the kernel's rows; in each row, the taps inside the map and the pixels they meet are two runs
without gaps, so one matrix product over (pixels x channels) serves the whole run, read in place from the map and from the kernel.

`two_by_two` (3x3, stride 1, on 2x2): along one axis the pixels (x0, x1) and the taps (w0, w1, w2) give

    y0 = w1 x0 + w2 x1 = w1 (x0 + x1) + (w2 - w1) x1
    y1 = w0 x0 + w1 x1 = w1 (x0 + x1) + (w0 - w1) x0

so three products, one of them shared, do the work of four; along both axes nine do the work of sixteen, in one batched product. The
rounding error stays that of the library (measured: 1e-6 of the largest element).

Taps that never meet the map have a gradient of exactly zero, for which Adam without weight decay leaves them where they are. They are a
parameter of their own, `idle_taps`, that gets no gradient, so that optimizers skip it: 7 of ResNet18's 11.2 million weights need no update.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LARGEST_LOWERED_MAP = 2
"""Outputs of up to this many pixels a side are lowered; on 4x4 maps the library reaches the speed of a bare matrix product itself."""


TWO_BY_TWO = (
    ((1, 0), (1, 1), (0, 1)),  # (x0, x0 + x1, x1)
    ((1, -1, 0), (0, 1, 0), (0, -1, 1)),  # (w0 - w1, w1, w2 - w1)
    ((0, 1, 1), (1, 1, 0)),  # (y0, y1) from their products, in this order
)
"""The scheme above along one axis; along both it is the Kronecker product of each matrix with itself."""


class Run(NamedTuple):
    """Consecutive taps of a kernel row and the consecutive pixels of a map row that they meet, for one output pixel; all row-major."""

    output: int
    pixel: int
    tap: int
    length: int


class Overlap(NamedTuple):
    """Along one axis, the taps [tap, tap + length) that meet the pixels [pixel, pixel + length) for one output pixel."""

    tap: int
    pixel: int
    length: int


def overlaps(map_size: int, kernel: int, stride: int, padding: int) -> list[Overlap]:
    """Return, for every output pixel along one axis, the part of the kernel that lies on the map."""
    num_outputs = (map_size + 2 * padding - kernel) // stride + 1
    starts = [stride * output - padding for output in range(num_outputs)]
    taps = [(max(0, -start), min(kernel, map_size - start)) for start in starts]
    return [Overlap(first, start + first, last - first) for start, (first, last) in zip(starts, taps, strict=True)]


class SmallMapConv2d(nn.Module):
    """A Conv2d without bias for square maps of one size, computed over the taps that count.

    Any other map, device or dtype goes through the library's convolution on the same weight, with the same gradients.
    In a state_dict it is a Conv2d: one entry, `weight`, [out, in, kernel, kernel].

    Attributes:
        taps: the kernel's positions that meet the map, row-major, [active, in, out].
        idle_taps: those that only ever meet padding, [idle, in, out].
    """

    def __init__(self, conv: nn.Conv2d, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        self.idle_taps_decay = False
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        along_axis = overlaps(map_size, self.kernel, self.stride, self.padding)
        self.output_size = len(along_axis)
        active_along_axis = range(min(part.tap for part in along_axis), max(part.tap + part.length for part in along_axis))
        positions = list(itertools.product(range(self.kernel), repeat=2))
        active = [index for index, (row, column) in enumerate(positions) if row in active_along_axis and column in active_along_axis]
        idle = [index for index in range(len(positions)) if index not in active]
        self.active, self.idle = active, idle
        self.runs = tuple(runs_of(along_axis, map_size, active_along_axis))
        by_tap = conv.weight.detach().permute(2, 3, 1, 0).flatten(0, 1)
        self.taps = nn.Parameter(by_tap[active].clone(memory_format=torch.contiguous_format))
        self.idle_taps = nn.Parameter(by_tap[idle].clone(memory_format=torch.contiguous_format))

    @property
    def weight(self) -> Tensor:
        """The torchvision weight, [out, in, kernel, kernel]: a copy, through which gradients reach both parts."""
        order = torch.tensor(self.active + self.idle, device=self.taps.device).argsort()
        return torch.cat([self.taps, self.idle_taps])[order].unflatten(0, (self.kernel, self.kernel)).permute(3, 2, 0, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolution of maps [batch, in, height, width]."""
        if not self._lowers(maps):
            return F.conv2d(maps, self.weight, stride=self.stride, padding=self.padding)
        outputs = self._lowered(maps.permute(0, 2, 3, 1).contiguous())
        # The sum over no taps at all adds nothing; its gradient is the zeros that make Adam apply weight decay.
        return outputs + self.idle_taps[:0].sum() if self.idle_taps_decay else outputs

    def _lowered(self, pixels: Tensor) -> Tensor:
        if self.output_size == 1 and len(self.runs) == 1:
            return self._one_product(pixels)
        if (self.kernel, self.stride, self.map_size) == (3, 1, 2):
            outputs = two_by_two(pixels.flatten(1, 2), self.taps)
        else:
            outputs = RunProducts.apply(pixels.flatten(1), self.taps, self.runs, self.output_size**2)
        return outputs.view(-1, self.output_size, self.output_size, self.taps.shape[2]).permute(0, 3, 1, 2)

    def _lowers(self, maps: Tensor) -> bool:
        fits = maps.dim() == 4 and maps.shape[-2:] == (self.map_size, self.map_size)
        plain = maps.device.type == "cpu" and maps.dtype == self.taps.dtype and not torch.is_autocast_enabled("cpu")
        return fits and plain

    def _one_product(self, pixels: Tensor) -> Tensor:
        (run,) = self.runs
        channels = pixels.shape[3]
        met = pixels.flatten(1)[:, run.pixel * channels : (run.pixel + run.length) * channels]
        return torch.mm(met, self.taps.flatten(0, 1))[:, :, None, None]

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight if keep_vars else self.weight.detach().contiguous()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs) -> None:
        key = prefix + "weight"
        if key not in state_dict:
            missing_keys.append(key)
            return
        shape = (self.taps.shape[2], self.taps.shape[1], self.kernel, self.kernel)
        if state_dict[key].shape != shape:
            error_msgs.append(f"size mismatch for {key}: expected {shape}, found {tuple(state_dict[key].shape)}")
            return
        with torch.no_grad():
            by_tap = state_dict[key].permute(2, 3, 1, 0).flatten(0, 1)
            self.taps.copy_(by_tap[self.active])
            self.idle_taps.copy_(by_tap[self.idle])


def runs_of(along_axis: list[Overlap], map_size: int, active: range) -> list[Run]:
    """Return the runs of all output pixels, in their order; runs that go on in the next row, in map and kernel alike, are joined."""
    runs: list[Run] = []
    for output, (rows, columns) in enumerate(itertools.product(along_axis, repeat=2)):
        for row in range(rows.length):
            pixel = (rows.pixel + row) * map_size + columns.pixel
            tap = (rows.tap + row - active.start) * len(active) + columns.tap - active.start
            last = runs[-1] if runs else None
            if last and last.output == output and last.pixel + last.length == pixel and last.tap + last.length == tap:
                runs[-1] = last._replace(length=last.length + columns.length)
            else:
                runs.append(Run(output, pixel, tap, columns.length))
    return runs


class RunProducts(torch.autograd.Function):
    """A convolution as one product a run. Pixels are [batch, pixels x in], taps [taps, in, out], outputs [batch, outputs x out]."""

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
        outputs_grad = outputs_grad.contiguous()
        pixels_grad, taps_grad = torch.zeros_like(pixels), torch.zeros_like(taps)
        values = _views(ctx.runs, pixels, taps, outputs_grad)
        for (met, matrix, output_grad), (met_grad, matrix_grad, _) in zip(
            values, _views(ctx.runs, pixels_grad, taps_grad, outputs_grad), strict=True
        ):
            met_grad.addmm_(output_grad, matrix.t())
            matrix_grad.addmm_(met.t(), output_grad)
        return pixels_grad, taps_grad, None, None


def _views(runs: tuple[Run, ...], pixels: Tensor, taps: Tensor, outputs: Tensor):
    """Yield for every run, as views, its pixels [batch, length x in], its taps [length x in, out] and its output [batch, out]."""
    _, num_in, num_out = taps.shape
    rows = taps.view(-1, num_out)
    for run in runs:
        yield (
            pixels[:, run.pixel * num_in : (run.pixel + run.length) * num_in],
            rows[run.tap * num_in : (run.tap + run.length) * num_in],
            outputs[:, run.output * num_out : (run.output + 1) * num_out],
        )


def two_by_two(pixels: Tensor, taps: Tensor) -> Tensor:
    """3x3 convolution, stride 1, of 2x2 maps [batch, 4, in] with taps [9, in, out] by nine products a map: [batch, 4, out]."""
    sums, differences, merges = (torch.kron(axis, axis) for axis in map(pixels.new_tensor, TWO_BY_TWO))
    factors = torch.matmul(sums, pixels)
    matrices = torch.matmul(differences, taps.flatten(1)).view_as(taps)
    return torch.matmul(merges, torch.bmm(factors.transpose(0, 1), matrices).transpose(0, 1))


def lower_small_maps(model: nn.Module, image_size: int = 28) -> nn.Module:
    """Replace, in place, the convolutions that give maps of 2x2 or 1x1 for images of `image_size`; the rest becomes channels_last.

    The model is a torchvision ResNet for one channel. It keeps its function, and the keys and shapes of its state_dict.
    """
    for name, map_size in _small_map_sizes(model, image_size).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, SmallMapConv2d(model.get_submodule(name), map_size))
    _pool_before_relu(model)
    return model.to(memory_format=torch.channels_last)


def _pool_before_relu(model: nn.Module) -> None:
    """Let the stem pool first: max and ReLU commute, gradients included, and ReLU then works on a quarter of the pixels."""
    if isinstance(model.maxpool, nn.MaxPool2d):
        model.maxpool = nn.Sequential(model.maxpool, model.relu)
        model.relu = nn.Identity()


def changing_tensors(model: nn.Module) -> list[Tensor]:
    """Return the floating-point tensors that training changes: the parameters, but for taps that stay idle, and batch-norm statistics."""
    idle = {id(module.idle_taps) for module in model.modules() if isinstance(module, SmallMapConv2d) and not module.idle_taps_decay}
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point() and id(tensor) not in idle]


def optimizer_parameters(model: nn.Module, *, weight_decay: float) -> list[Tensor]:
    """Return what Adam must be given. With weight decay, idle taps are from now on handed a gradient of zero, so that Adam decays them."""
    for module in model.modules():
        if isinstance(module, SmallMapConv2d):
            module.idle_taps_decay = weight_decay != 0
    return list(model.parameters())


def _small_map_sizes(model: nn.Module, image_size: int) -> dict[str, int]:
    """Return the size of the map that enters each convolution to lower, by name, as one blank image passes through."""
    sizes: dict[str, int] = {}

    def note(name: str):
        def hook(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            square = inputs[0].shape[2] == inputs[0].shape[3]
            if square and output.shape[2] <= LARGEST_LOWERED_MAP:
                sizes[name] = inputs[0].shape[2]

        return hook

    hooks = [conv.register_forward_hook(note(name)) for name, conv in model.named_modules() if _is_lowerable(conv)]
    was_training = model.training
    with torch.no_grad():
        weight = next(model.parameters())
        model.eval()(torch.zeros(1, weight.shape[1], image_size, image_size, dtype=weight.dtype, device=weight.device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return sizes


def _is_lowerable(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.bias is not None or module.groups != 1 or module.dilation != (1, 1):
        return False
    return (module.kernel_size[0], module.padding) in {(3, (1, 1)), (1, (0, 0))} and module.padding_mode == "zeros"
