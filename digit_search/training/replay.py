"""A training step as a CUDA graph: recorded once, then started by one call instead of some six hundred.

A step's kernels on 28x28 digits take a fast card one or two milliseconds, and the host five or more to start one by one.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From inputs and labels to outputs and loss, both detached. All that it does is done on the device."""
WARM_UP_STEPS = 3
"""Steps of a size that run one by one first: libraries choose their kernels and optimizers make their state in those."""


class Recorded(Protocol):
    """A step that can be repeated for other batches of the same size."""

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]: ...


class RecordedOnCuda:
    """A step's kernels, which always read and write the same memory: a batch is copied to where the recorded one was."""

    def __init__(self, step: Step, inputs: Tensor, labels: Tensor) -> None:
        self._inputs, self._labels = inputs.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        # Recording does nothing but record. Other threads may use the card meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = step(self._inputs, self._labels)

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Do the step; its results hold until the next call."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._results


class ReplayedStep:
    """Does a step as recorded, for every size of a batch and for the numbers that a recording has in it, such as the learning rate."""

    def __init__(self, step: Step, record: Callable[[Step, Tensor, Tensor], Recorded] = RecordedOnCuda) -> None:
        self._step = step
        self._record = record
        self._done: Counter[int] = Counter()
        self._recorded: dict[int, Recorded] = {}
        self._numbers: tuple[float, ...] = ()

    def __call__(self, inputs: Tensor, labels: Tensor, numbers: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Do the step; its results hold until the next call.

        Args:
            inputs: a batch.
            labels: of the batch.
            numbers: those that the step reads on the host; others than before make it be recorded anew.
        """
        size = len(labels)
        if self._done[size] < WARM_UP_STEPS:
            self._done[size] += 1
            return self._step(inputs, labels)
        if numbers != self._numbers:
            self._recorded.clear()
            self._numbers = numbers
        if size not in self._recorded:
            self._recorded[size] = self._record(self._step, inputs, labels)
        return self._recorded[size](inputs, labels)
