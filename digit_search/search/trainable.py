"""What Tune runs for each trial, and what it is given. Importing it costs no torch: only workers need that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray import tune
from ray.tune.trainable import wrap_function

from digit_search.cluster.storage_probe import UNREACHED, problem_here
from digit_search.data.split import RowSplit
from digit_search.errors import StorageError
from digit_search.search.study import Objective


@dataclass(frozen=True, slots=True)
class TrialSetup:
    """All that every trial of a search shares, beside the digits; small, and sent to each worker."""

    split: RowSplit
    trials_location: str
    """Where the trials' checkpoints are kept (`RunFolder.trials_location`)."""
    max_epochs: int
    reports_per_epoch: int
    ema_half_life_epochs: float
    precision: str
    compile: bool
    num_threads: int
    objective: Objective
    uses_mps: bool = False
    reach_token: str = ""
    """On a cluster, what the nodes that keep checkpoints find in `trials_location` (`StorageProbe.token`)."""


def train_trial(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> None:
    """Run one trial in a worker, where torch is imported once for all trials that it gets.

    Raises:
        StorageError: if this node cannot keep its checkpoints, so that Tune begins it again elsewhere.
    """
    if setup.reach_token:
        node, problem = problem_here(setup.trials_location, setup.reach_token)
        if problem:
            tune.report({UNREACHED: problem, "node_id": node})
            raise StorageError(problem)
    from digit_search.search.worker import run_trial

    run_trial(config, table, setup)


def make_worker_class(train: Callable[[dict[str, Any]], None], run: str, resources: Mapping[str, float]) -> type[tune.Trainable]:
    """The class of the actors that run trials, with names that tell them on Ray's dashboard: Tune would call each of them ImplicitFunc.

    An actor is named once, when it is made, and then serves many trials; the trial that it began with tells the workers apart.
    """

    class TrialWorker(wrap_function(tune.with_resources(train, dict(resources)))):
        def __repr__(self) -> str:
            return f"{run} worker (first {self.trial_name})"

    # Ray would show where the class was made as well.
    TrialWorker.__qualname__ = "TrialWorker"
    return TrialWorker
