"""The state of optimizer and moving average under the names and shapes of torchvision's model, so that any device can resume from it.

On the CPU the lowered convolutions store their weights, Adam's moments and the averages by tap (winograd_conv.py). Idle taps, more than
half of all weights, never change without weight decay and are left out of the state.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from digit_search.training.cpu.lowering import changing_tensors, lowered_convs

MOMENTS = ("exp_avg", "exp_avg_sq")

SavedTensors = dict[str, Tensor | dict[str, Any]]
"""By torchvision's name, a tensor, or only the active taps of a convolution: {"taps": [taps, in, out], "active": their numbers}."""


def to_torchvision(model: nn.Module, tensors: Mapping[str, Tensor]) -> SavedTensors:
    """Tensors that belong to the model's parameters and buffers, by their names, in the form of torchvision's model."""
    saved: SavedTensors = {}
    remaining = dict(tensors)
    convs = lowered_convs(model)
    for name in tensors:
        conv_name = name.removesuffix(".taps")
        if conv_name in convs and name.endswith(".taps"):
            conv = convs[conv_name]
            taps, idle_taps = remaining.pop(name), remaining.pop(f"{conv_name}.idle_taps", conv.idle_taps[:0])
            is_whole = len(taps) + len(idle_taps) == conv.kernel**2
            saved[f"{conv_name}.weight"] = conv.join_taps_by_copy(taps, idle_taps) if is_whole else {"taps": taps, "active": conv.active}
    return {**remaining, **saved}


def from_torchvision(model: nn.Module, saved: SavedTensors, missing: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_torchvision`. For a whole weight of which only the active taps were saved, `missing` has the other taps."""
    convs = lowered_convs(model)
    tensors: dict[str, Tensor] = {}
    for name, value in saved.items():
        conv_name = name.removesuffix(".weight")
        if conv_name not in convs:
            tensors[name] = value if isinstance(value, Tensor) else _fill_in(value, missing[name])
        elif isinstance(value, Tensor):
            tensors[f"{conv_name}.taps"], tensors[f"{conv_name}.idle_taps"] = convs[conv_name].split_weight(value)
        else:
            tensors[f"{conv_name}.taps"] = value["taps"]
    return tensors


def _fill_in(saved: Mapping[str, Any], weight: Tensor) -> Tensor:
    """A copy of a weight [out, in, kernel, kernel] with the saved taps put in."""
    by_tap = weight.permute(2, 3, 1, 0).flatten(0, 1).clone()
    by_tap[saved["active"]] = saved["taps"].to(by_tap)
    return by_tap.unflatten(0, weight.shape[2:]).permute(3, 2, 0, 1)


def adam_state(model: nn.Module, adam: torch.optim.Adam) -> dict[str, Any]:
    """Adam's number of steps, learning rate and moments. Adam has one group, the model's parameters, and steps all of them together."""
    states = {name: adam.state[parameter] for name, parameter in model.named_parameters() if parameter in adam.state}
    moments = {key: to_torchvision(model, {name: state[key] for name, state in states.items()}) for key in MOMENTS}
    steps = next((int(state["step"]) for state in states.values()), 0)
    return {"lr": adam.param_groups[0]["lr"], "steps": steps, **moments}


@torch.no_grad()
def load_adam_state(model: nn.Module, adam: torch.optim.Adam, state: Mapping[str, Any]) -> None:
    """Load the result of `adam_state`, from this device or another, into a new Adam.

    Raises:
        ValueError: if it belongs to another model.
    """
    zeros = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    moments = {key: from_torchvision(model, state[key], zeros) for key in MOMENTS}
    trained = changing_tensors(model)
    states: dict[int, dict[str, Tensor]] = {}
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if name in trained and state["steps"] > 0:
            loaded = {key: moments[key].get(name, parameter[:0]) for key in MOMENTS}
            if any(moment.shape != parameter.shape for moment in loaded.values()):
                raise ValueError(f"Adam's moments of {name}: expected the shape {list(parameter.shape)}")
            # The fused Adam needs the moments in the memory layout of the parameter.
            placed = {key: torch.empty_like(parameter).copy_(moment) for key, moment in loaded.items()}
            states[index] = {"step": torch.tensor(float(state["steps"])), **placed}
    groups = adam.state_dict()["param_groups"]
    adam.load_state_dict({"state": states, "param_groups": [group | {"lr": state["lr"]} for group in groups]})


def average_state(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a `WeightAverage` over the model's changing tensors, in the form of torchvision's model."""
    return {**state, "averages": to_torchvision(model, dict(zip(changing_tensors(model), state["averages"], strict=True)))}


def from_average_state(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `average_state`, for a model whose weights are loaded already."""
    averages = from_torchvision(model, state["averages"], {name: parameter.detach() for name, parameter in model.named_parameters()})
    return {**state, "averages": [averages[name] for name in changing_tensors(model)]}
