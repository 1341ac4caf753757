"""An exponential moving average of the weights and the batch-norm statistics.

Scores of the averaged weights tell early which configuration will end well, because they look past the noise of a learning rate that has
not dropped yet.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

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
        # An update reads all weights and writes all averages; every few steps is as good when the half-life is long, and costs a fraction.
        self._every = max(1, min(MAX_STEPS_PER_UPDATE, int(half_life_steps / UPDATES_PER_HALF_LIFE)))
        self._decay = 0.5 ** (self._every / half_life_steps)
        self._steps = 0

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in the weights of another optimizer step."""
        self._steps += 1
        if self._steps % self._every:
            return
        updates = self._steps // self._every
        # Ramped up like n / (n + 3), so that the random initial weights are forgotten within a few updates.
        decay = min(self._decay, updates / (updates + 3))
        torch._foreach_lerp_(self._averages, self._tensors, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the model hold the averages for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        trained = [tensor.clone() for tensor in self._tensors]
        torch._foreach_copy_(self._tensors, self._averages)
        torch._foreach_copy_(self._averages, trained)

    def state_dict(self) -> dict[str, object]:
        return {"averages": self._averages, "steps": self._steps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        torch._foreach_copy_(self._averages, state["averages"])
        self._steps = int(state["steps"])
