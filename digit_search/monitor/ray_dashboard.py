"""The search on Ray's dashboard, which knows jobs, actors and tasks, but no trials.

The workers are actors, and each runs many trials. Ray (2.60) does not let an actor change its name, or a job its metadata, but each task
has its own name. So an actor that does nothing has a task for each trial, which lasts as long as the trial, and one for each new best.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import ray

from digit_search.cluster.capacity import WANTS
from digit_search.monitor.progress import after_epochs
from digit_search.records import CORE_PARAM_NAMES
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent, TrialEnded, TrialStarted
from digit_search.run.layout import trial_name
from digit_search.run.state import RunState

BEST_SO_FAR = "best so far: the newest task of that name, and the metric ray_digit_search_best_accuracy"


def job_metadata(run: str, num_samples: int, wanted: int = 1) -> Mapping[str, str]:
    """What Ray shows of our job. `wanted` is how many trials at a time it would like to run; other searches on the cluster read it."""
    # Ray's list of jobs shows "job_name" as the name.
    name = f"digit_search {run} ({num_samples} trials)"
    return {"job_name": name, "run": run, "samples": str(num_samples), "best_so_far": BEST_SO_FAR, WANTS: str(wanted)}


class TrialBoard:
    """The actor. The dashboard shows each call of a method as a task."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._trials: dict[int, asyncio.Future[None]] = {}

    def __repr__(self) -> str:
        return f"{self._run}: trials as tasks"

    def _outcome(self, trial: int) -> asyncio.Future[None]:
        return self._trials.setdefault(trial, asyncio.get_running_loop().create_future())

    async def trial(self, trial: int) -> None:
        """Return when the trial ends."""
        await self._outcome(trial)

    async def end(self, trial: int, error: str) -> None:
        """End the trial's task, which fails if there is an error."""
        outcome = self._outcome(trial)
        if outcome.done():
            return
        if error:
            outcome.set_exception(RuntimeError(error))
        else:
            outcome.set_result(None)

    async def best(self) -> None:
        """Do nothing: the name of the task says it all."""


class RayDashboard(Observer):
    """Starts the board's tasks and gives them their names, without waiting for them; their errors are ignored."""

    def __init__(self, run: str) -> None:
        options = {"num_cpus": 0, "name": f"digit_search {run}", "get_if_exists": True}
        self._board: Any = ray.remote(TrialBoard).options(**options).remote(run)

    def on_event(self, event: RunEvent, state: RunState) -> None:
        match event:
            case TrialStarted():
                values = ", ".join(f"{name} {getattr(event.params, name):.4g}" for name in CORE_PARAM_NAMES)
                self._board.trial.options(name=f"{trial_name(event.trial)}: {values}").remote(event.trial)
            case EpochReported() if state.best and state.best.metrics is event.metrics:
                name = f"best so far: {event.metrics.scored_accuracy:.4f} ({trial_name(event.trial)})"
                self._board.best.options(name=name).remote()
            case TrialEnded():
                metrics = state.last_report(event.trial)
                score = f" {after_epochs(metrics)}: accuracy {metrics.scored_accuracy:.4f}" if metrics else ""
                self._board.end.options(name=f"{trial_name(event.trial)} {event.status}{score}").remote(event.trial, event.error)
