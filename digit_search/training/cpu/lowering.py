"""Replace the layers of a torchvision ResNet by the CPU's: the same function, faster on small maps."""

import itertools

import torch
from torch import Tensor, nn

from digit_search.training.cpu.batchnorm import replace_batch_norms
from digit_search.training.cpu.stem import pool_before_norm
from digit_search.training.cpu.winograd_conv import SmallMapConv2d, is_one_product
from digit_search.training.cpu.winograd_filters import has_winograd_filter


def lower_small_maps(model: nn.Module, image_size: int = 28) -> nn.Module:
    """Make a torchvision ResNet fast on the CPU, in place, for square images of `image_size` pixels a side.

    The convolutions on small maps become matrix products; the other layers become channels-last. The model computes the same function for
    images of every size, up to rounding, and its state_dict keeps its keys and shapes.
    """
    for name, (conv, map_size) in _convs_to_lower(model, image_size).items():
        model.set_submodule(name, SmallMapConv2d(conv, map_size))
    pool_before_norm(model)
    replace_batch_norms(model)
    return model.to(memory_format=torch.channels_last)


def _convs_to_lower(model: nn.Module, image_size: int) -> dict[str, tuple[nn.Conv2d, int]]:
    """Run the model on a blank image; return the convolutions to lower, by name, with the size of the maps that they receive."""
    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    map_sizes: dict[nn.Module, int] = {}

    def note_map_size(conv: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        map_sizes[conv] = inputs[0].shape[2]

    hooks = [conv.register_forward_hook(note_map_size) for conv in convs.values()]
    was_training = model.training
    first_weight = next(model.parameters())
    with torch.no_grad():
        model.eval()(first_weight.new_zeros(1, first_weight.shape[1], image_size, image_size))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return {name: (conv, map_sizes[conv]) for name, conv in convs.items() if _can_be_lowered(conv, map_sizes[conv])}


def _can_be_lowered(conv: nn.Conv2d, map_size: int) -> bool:
    is_plain = conv.bias is None and conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    if not is_plain or (conv.kernel_size, conv.padding) not in {((3, 3), (1, 1)), ((1, 1), (0, 0))}:
        return False
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    return has_winograd_filter(kernel, stride, map_size) or is_one_product(map_size, kernel, stride, padding)


def lowered_convs(model: nn.Module) -> dict[str, SmallMapConv2d]:
    """The model's lowered convolutions, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SmallMapConv2d)}


def optimizer_parameters(model: nn.Module, *, weight_decay: float) -> list[nn.Parameter]:
    """The parameters for Adam. With weight decay the idle taps get a gradient of zero from now on, so that they decay like the others."""
    for conv in lowered_convs(model).values():
        conv.decays_idle_taps = weight_decay != 0
    return list(model.parameters())


def changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """By name, the floating-point tensors that training changes: parameters, except idle taps without decay, and running statistics."""
    idle = {id(conv.idle_taps) for conv in lowered_convs(model).values() if not conv.decays_idle_taps}
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point() and id(tensor) not in idle}
