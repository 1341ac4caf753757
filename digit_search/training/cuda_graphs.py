"""A training step as a CUDA graph: recorded once, then started by one call instead of about six hundred.

For 28x28 digits, a fast GPU computes the kernels of a step in one or two milliseconds. The host needs five to start them one by one.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From inputs and labels to outputs and loss, both detached. A step must not read anything back to the host."""
WARM_UP_STEPS = 3
"""Steps before recording, in which libraries choose their kernels and the optimizer creates its state."""


class RecordedOnCuda:
    """A recorded step. Its kernels always use the same memory, so each batch is copied to where the recorded batch was."""

    def __init__(self, step: Step, inputs: Tensor, labels: Tensor) -> None:
        self._inputs, self._labels = inputs.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        # Recording runs no kernel. "thread_local" allows other threads to use the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = step(self._inputs, self._labels)

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the step; the next call overwrites its results."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._results


class ReplayedStep:
    """Runs a step for batches of one size, recorded after the warm-up. The learning rate is part of the recording."""

    def __init__(self, record: Callable[[Step, Tensor, Tensor], Step] = RecordedOnCuda) -> None:
        self._record = record
        self._warm_up_left = WARM_UP_STEPS
        self._recorded: Step | None = None
        self._lr = 0.0

    def __call__(self, step: Step, inputs: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Run the step; the next call overwrites its results.

        Args:
            step: the same one in every call.
            inputs: a batch.
            labels: of the batch.
            lr: the learning rate that the step uses; when it changes, the step is recorded again.
        """
        if self._warm_up_left > 0:
            self._warm_up_left -= 1
            with warnings.catch_warnings():
                # Adam (torch 2.14.1) warns about a step outside a graph, because it does not know that this is the warm-up.
                warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
                return step(inputs, labels)
        if self._recorded is None or lr != self._lr:
            # Free the memory of the old recording before the new one is made.
            self._recorded = None
            self._recorded, self._lr = self._record(step, inputs, labels), lr
        return self._recorded(inputs, labels)
