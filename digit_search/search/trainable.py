"""What Tune runs for each trial, and what it is given. Importing this does not import torch, which only workers need."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray import tune

from digit_search.cluster.storage_probe import UNREACHED, problem_here
from digit_search.config.settings import TrainingSettings
from digit_search.data.split import RowSplit
from digit_search.errors import StorageError
from digit_search.private_api import worker_class
from digit_search.search.study import Objective

FAILED = "failed"
"""Key in a trial's report: the trial failed; the value is the error in one line."""
UNSAVED = "unsaved"
"""Key in a trial's report: the disk did not take its checkpoint; the value is the message."""


@dataclass(frozen=True, slots=True)
class TrialSetup:
    """What all trials of a search share, apart from the digits. It is small, and sent to each worker."""

    split: RowSplit
    trials_location: str
    """Where the trials' checkpoints are kept (`RunFolder.trials_location`)."""
    max_epochs: int
    training: TrainingSettings
    num_threads: int
    objective: Objective
    uses_mps: bool = False
    probe_token: str = ""
    """On a joined cluster: what a node must find in `trials_location` (`StorageProbe.token`)."""


def train_trial(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> None:
    """Run one trial in a worker. The worker imports torch once for all of its trials.

    Raises:
        StorageError: if this node cannot keep the trial's checkpoints, so that Tune starts it again elsewhere.
    """
    if setup.probe_token:
        node, problem = problem_here(setup.trials_location, setup.probe_token)
        if problem:
            tune.report({UNREACHED: problem, "node_id": node})
            raise StorageError(problem)
    from digit_search.search.worker import run_trial

    run_trial(config, table, setup)


def make_worker_class(train: Callable[[dict[str, Any]], None], run: str, resources: Mapping[str, float]) -> type[tune.Trainable]:
    """The class of the actors that run trials. It names them on Ray's dashboard, where Tune would call each of them ImplicitFunc.

    An actor is named once, when it is made, and then runs many trials. The trial that it began with tells the workers apart.
    """
    base: Any = worker_class(tune.with_resources(train, dict(resources)))

    class TrialWorker(base):
        def __repr__(self) -> str:
            return f"{run} worker (first {self.trial_name})"

    # Otherwise Ray would also show the function that made the class.
    TrialWorker.__qualname__ = "TrialWorker"
    return TrialWorker
