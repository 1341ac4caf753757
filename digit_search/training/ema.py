"""An exponential moving average of the weights and the batch-norm statistics.

The scores of the averaged weights show early which configuration will end well, because averaging removes most of the noise that a
learning rate causes before it drops.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

UPDATES_PER_HALF_LIFE = 8
MAX_STEPS_PER_UPDATE = 4


class WeightAverage:
    """Averages of some tensors; the invariant is that `swapped_in` always puts the trained values back."""

    def __init__(self, tensors: Collection[Tensor], half_life_steps: float) -> None:
        """Start from the tensors' present values.

        Args:
            tensors: floating-point parameters and buffers that training changes.
            half_life_steps: optimizer steps after which a value's weight has halved.
        """
        self._tensors = [tensor.detach() for tensor in tensors]
        self._averages = [tensor.clone() for tensor in self._tensors]
        # An update reads all weights and writes all averages. With a long half-life, one every few steps is as good and costs less.
        self._every = max(1, min(MAX_STEPS_PER_UPDATE, int(half_life_steps / UPDATES_PER_HALF_LIFE)))
        self._decay = 0.5 ** (self._every / half_life_steps)
        self._steps = 0

    def after_step(self) -> None:
        """Count an optimizer step; every few steps, update the averages."""
        self._steps += 1
        if self._steps % self._every:
            return
        updates = self._steps // self._every
        # The decay grows like n / (n + 3), so that the random initial weights are forgotten within a few updates.
        decay = min(self._decay, updates / (updates + 3))
        # torch's function updates all tensors in a few kernels; on a GPU that is a hundred fewer to start.
        get_ema_multi_avg_fn(decay)(self._averages, self._tensors, updates)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the averages into the model for the duration of the `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for tensor, average in zip(self._tensors, self._averages, strict=True):
            trained = tensor.clone()
            tensor.copy_(average)
            average.copy_(trained)

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self._averages, "steps": self._steps}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for average, value in zip(self._averages, state["averages"], strict=True):
            average.copy_(value)
        self._steps = int(state["steps"])
