"""What a training has beside its model, laid out as for torchvision's model, so that it can go on on any device.

On the CPU the model's convolutions keep their weights by tap (small_maps.py), and so do Adam's moments and the averages of the weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from digit_search.training.small_maps import SmallMapConv2d, changing_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")


def as_stock(model: nn.Module, values: Mapping[str, Tensor], idle: Callable[[SmallMapConv2d], Tensor]) -> dict[str, Tensor]:
    """Values of the model's tensors, by name, as values of torchvision's; `idle` gives those of idle taps that are not among them."""
    stock = dict(values)
    for name, module in _lowered(model):
        if f"{name}.taps" in stock:
            idle_taps = stock.pop(f"{name}.idle_taps", None)
            stock[f"{name}.weight"] = module.lay_out(stock.pop(f"{name}.taps"), idle(module) if idle_taps is None else idle_taps)
    return stock


def as_ours(model: nn.Module, stock: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of torchvision's tensors as values of the model's."""
    ours = dict(stock)
    for name, module in _lowered(model):
        if f"{name}.weight" in ours:
            ours[f"{name}.taps"], ours[f"{name}.idle_taps"] = module.take_apart(ours.pop(f"{name}.weight"))
    return ours


def adam_state(model: nn.Module, adam: torch.optim.Adam) -> dict[str, Any]:
    """Adam's steps, learning rate and moments. The model's parameters are its only group, and it has stepped with all or none."""
    states = {name: adam.state[parameter] for name, parameter in model.named_parameters() if parameter in adam.state}
    moments = {
        key: as_stock(model, {name: state[key] for name, state in states.items()}, lambda module: torch.zeros_like(module.idle_taps))
        for key in MOMENTS
    }
    steps = next((int(state["step"]) for state in states.values()), 0)
    return {"lr": adam.param_groups[0]["lr"], "steps": steps, **moments}


def load_adam_state(model: nn.Module, adam: torch.optim.Adam, state: Mapping[str, Any]) -> None:
    """Bring Adam, fresh, to a state that `adam_state` gave, on this device or another."""
    moments = {key: as_ours(model, state[key]) for key in MOMENTS}
    trained = changing_tensors(model)
    states = {
        # The fused Adam wants a parameter's moments to lie in memory as the parameter does.
        index: {"step": torch.tensor(float(state["steps"])), **{key: torch.empty_like(own).copy_(moments[key][name]) for key in MOMENTS}}
        for index, (name, own) in enumerate(model.named_parameters())
        if name in trained and name in moments[MOMENTS[0]]
    }
    groups = adam.state_dict()["param_groups"]
    adam.load_state_dict({"state": states, "param_groups": [group | {"lr": state["lr"]} for group in groups]})


def average_state(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a `WeightAverage` over the model's changing tensors."""
    averages = dict(zip(changing_tensors(model), state["averages"], strict=True))
    return {**state, "averages": as_stock(model, averages, lambda module: module.idle_taps.detach())}


def from_average_state(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `average_state`."""
    averages = as_ours(model, state["averages"])
    return {**state, "averages": [averages[name] for name in changing_tensors(model)]}


def _lowered(model: nn.Module) -> list[tuple[str, SmallMapConv2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, SmallMapConv2d)]
