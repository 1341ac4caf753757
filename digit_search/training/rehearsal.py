"""One tiny training on a device, which tells in a second what a search on it would stumble over."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from digit_search.errors import ResourceError
from digit_search.records import TrialParams
from digit_search.training.batches import place_digits
from digit_search.training.cuda_graphs import WARM_UP_STEPS
from digit_search.training.device import DevicePlan
from digit_search.training.loop import Trainer, TrainingSetup

BATCH_SIZE = 4
NUM_BATCHES = WARM_UP_STEPS + 2
"""So many that steps are recorded where they are to be."""


def rehearse(plan: DevicePlan) -> None:
    """Train for a few steps with all that a trial may do, and validate; raise what torch raises."""
    num_training, num_rows = BATCH_SIZE * NUM_BATCHES, BATCH_SIZE * (NUM_BATCHES + 1)
    pixels = np.arange(num_rows * 784, dtype=np.int64).reshape(num_rows, 784).astype(np.uint8)
    digits = place_digits(pixels, (np.arange(num_rows) % 10).astype(np.uint8), plan)
    rows = torch.arange(num_rows)
    setup = TrainingSetup(digits, rows[:num_training], rows[num_training:], plan, ema_half_life_epochs=1.0)
    trainer = Trainer(setup, TrialParams(shift_pixels=1.0, batch_size=BATCH_SIZE), seed=0)
    trainer.advance()
    trainer.load_state_dict(trainer.state_dict())


def check_operators(plan: DevicePlan, rehearse: Callable[[DevicePlan], None] = rehearse) -> None:
    """See that the device has every operator that a training needs. Apple's MPS lacks some, other ones with each version of torch.

    Raises:
        ResourceError: naming those that it lacks.
    """
    try:
        rehearse(plan)
    except NotImplementedError as error:
        lacks = ", ".join(_missing_operators(plan, rehearse)) or _first_sentence(error)
        raise ResourceError(
            f"{plan.device.type}: torch {torch.__version__} lacks operators there that the training needs: {lacks}. "
            "Set PYTORCH_ENABLE_MPS_FALLBACK=1 to have the CPU do those (slower), or compute on the CPU alone with --gpus-per-trial 0"
        ) from error


def _missing_operators(plan: DevicePlan, rehearse: Callable[[DevicePlan], None]) -> list[str]:
    """The names of all missing operators: the CPU stands in for each, so that the rehearsal goes on to the next."""
    filling = _CpuFillsIn()
    try:
        with filling:
            rehearse(plan)
    except Exception:  # noqa: BLE001
        # One that the CPU cannot stand in for; those found until then are worth telling.
        return list(filling.missing)
    return list(filling.missing)


def _first_sentence(error: NotImplementedError) -> str:
    return " ".join(str(error).split()).partition(". ")[0] or "one that it does not name"


class _CpuFillsIn(TorchDispatchMode):
    """Runs an operator that the device lacks on copies of its arguments on the CPU, and keeps its name."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: dict[str, None] = {}
        """The names, in the order in which they came."""

    def __torch_dispatch__(self, operator: Any, types: object, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        try:
            return operator(*args, **(kwargs or {}))
        except NotImplementedError:
            self.missing[operator._schema.name] = None
        return on_cpu(operator, args, kwargs or {})


def on_cpu(operator: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What the operator returns, and does to the arguments that it writes to, computed on the CPU."""
    device = kwargs.get("device") or next((value.device for value in _tensors((args, kwargs))), torch.device("cpu"))
    copies: dict[int, tuple[Tensor, Tensor]] = {}

    def to_cpu(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return torch.device("cpu") if isinstance(value, torch.device) else value
        copies[id(value)] = (value, value.detach().to("cpu", copy=True))
        return copies[id(value)][1]

    result = operator(*tree_map(to_cpu, args), **tree_map(to_cpu, kwargs))
    originals = {id(copy): original for original, copy in copies.values()}
    for original, copy in copies.values():
        if operator._schema.is_mutable:
            original.copy_(copy)
    return tree_map(lambda value: originals.get(id(value), value.to(device)) if isinstance(value, Tensor) else value, result)


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda value: found.append(value) if isinstance(value, Tensor) else None, tree)
    return found
