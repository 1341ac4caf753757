"""A training step as a CUDA graph: recorded once, then started by one call instead of some six hundred.

A step's kernels on 28x28 digits take a fast card one or two milliseconds, and the host five or more to start one by one.
"""

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From inputs and labels to outputs and loss, both detached. All that it does is done on the device."""
WARM_UP_STEPS = 3
"""Steps that run one by one first: libraries choose their kernels and optimizers make their state in those."""


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
    """Does a step as recorded, for batches of one size. The learning rate is a part of what is recorded."""

    def __init__(self, record: Callable[[Step, Tensor, Tensor], Recorded] = RecordedOnCuda) -> None:
        self._record = record
        self._warm_up_left = WARM_UP_STEPS
        self._recorded: Recorded | None = None
        self._lr = 0.0

    def __call__(self, step: Step, inputs: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Do the step; its results hold until the next call.

        Args:
            step: always the same.
            inputs: a batch.
            labels: of the batch.
            lr: the learning rate that the step reads; another than before makes it be recorded anew.
        """
        if self._warm_up_left > 0:
            self._warm_up_left -= 1
            with warnings.catch_warnings():
                # Adam (torch 2.14) mistakes these steps for all of them.
                warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
                return step(inputs, labels)
        if self._recorded is None or lr != self._lr:
            self._recorded, self._lr = None, lr
            self._recorded = self._record(step, inputs, labels)
        return self._recorded(inputs, labels)
