"""What a training has beside its model, by the names of torchvision's model, so that it can go on on any device.

On the CPU the model's convolutions keep their weights by tap (small_maps.py), and so do Adam's moments and the averages of the weights.
Taps that training never changes, more than half of the weights, are left out: whoever needs them knows what they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from digit_search.training.cpu.winograd_conv import SmallMapConv2d, changing_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")

Saved = dict[str, Tensor | dict[str, Any]]
"""A tensor, or of a convolution some taps alone: {"taps": [taps, in, out], "active": their numbers}."""


def as_saved(model: nn.Module, values: Mapping[str, Tensor]) -> Saved:
    """Values of the model's tensors, by their names, under the names of torchvision's."""
    saved: Saved = dict(values)
    for name, module in _lowered(model):
        if f"{name}.taps" in saved:
            taps, idle_taps = saved.pop(f"{name}.taps"), saved.pop(f"{name}.idle_taps", module.idle_taps[:0])
            is_whole = len(taps) + len(idle_taps) == module.kernel**2
            saved[f"{name}.weight"] = module.lay_out(taps, idle_taps) if is_whole else {"taps": taps, "active": module.active}
    return saved


def as_ours(model: nn.Module, saved: Saved, missing: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Saved values as values of the model's tensors, by their names; `missing` has those of whole weights of which some taps were saved."""
    ours = dict(saved)
    for name, module in _lowered(model):
        if isinstance(value := ours.pop(f"{name}.weight", None), Tensor):
            ours[f"{name}.taps"], ours[f"{name}.idle_taps"] = module.take_apart(value)
        elif value is not None:
            ours[f"{name}.taps"] = value["taps"]
    return {name: value if isinstance(value, Tensor) else _filled_in(value, missing[name]) for name, value in ours.items()}


def _filled_in(saved: Mapping[str, Any], weight: Tensor) -> Tensor:
    by_tap = weight.permute(2, 3, 1, 0).flatten(0, 1).clone()
    by_tap[saved["active"]] = saved["taps"].to(by_tap)
    return by_tap.unflatten(0, weight.shape[2:]).permute(3, 2, 0, 1)


def adam_state(model: nn.Module, adam: torch.optim.Adam) -> dict[str, Any]:
    """Adam's steps, learning rate and moments. The model's parameters are its only group, and it has stepped with all or none."""
    states = {name: adam.state[parameter] for name, parameter in model.named_parameters() if parameter in adam.state}
    moments = {key: as_saved(model, {name: state[key] for name, state in states.items()}) for key in MOMENTS}
    steps = next((int(state["step"]) for state in states.values()), 0)
    return {"lr": adam.param_groups[0]["lr"], "steps": steps, **moments}


@torch.no_grad()
def load_adam_state(model: nn.Module, adam: torch.optim.Adam, state: Mapping[str, Any]) -> None:
    """Bring Adam, fresh, to a state that `adam_state` gave, on this device or another.

    Raises:
        ValueError: if it is another model's.
    """
    zeros = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    moments = {key: as_ours(model, state[key], zeros) for key in MOMENTS}
    trained = changing_tensors(model)
    states: dict[int, dict[str, Tensor]] = {}
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if name in trained and state["steps"] > 0:
            found = {key: moments[key].get(name, parameter[:0]) for key in MOMENTS}
            if any(moment.shape != parameter.shape for moment in found.values()):
                raise ValueError(f"Adam's moments of {name}: expected the shape {list(parameter.shape)}")
            # The fused Adam wants them to lie in memory as the parameter does.
            placed = {key: torch.empty_like(parameter).copy_(moment) for key, moment in found.items()}
            states[index] = {"step": torch.tensor(float(state["steps"])), **placed}
    groups = adam.state_dict()["param_groups"]
    adam.load_state_dict({"state": states, "param_groups": [group | {"lr": state["lr"]} for group in groups]})


def average_state(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a `WeightAverage` over the model's changing tensors."""
    return {**state, "averages": as_saved(model, dict(zip(changing_tensors(model), state["averages"], strict=True)))}


def from_average_state(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `average_state`, for a model that has its weights already."""
    averages = as_ours(model, state["averages"], {name: parameter.detach() for name, parameter in model.named_parameters()})
    return {**state, "averages": [averages[name] for name in changing_tensors(model)]}


def _lowered(model: nn.Module) -> list[tuple[str, SmallMapConv2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, SmallMapConv2d)]
