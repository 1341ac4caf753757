"""The search on Ray's dashboard, which knows jobs, actors and tasks, but no trials.

The workers are actors, and each serves many trials, so their names cannot tell the trial: Ray (2.60) takes an actor's name when it is made
and never again, as it does with a job's metadata. Tasks can be named one by one. So an actor that does nothing has a task for each trial,
which lasts as long as the trial does, and one for each new best.
"""

import asyncio
from collections.abc import Mapping

import ray

from digit_search.cluster.capacity import WANTS
from digit_search.records import CORE_PARAM_NAMES, EpochMetrics, TrialParams, TrialStatus
from digit_search.run.layout import trial_name
from digit_search.run.standing import Display, Standing, after_epochs

BEST_SO_FAR = "best so far: the newest task of that name, and the metric ray_digit_search_best_accuracy"


def job_metadata(run: str, num_samples: int, wanted: int = 1) -> Mapping[str, str]:
    """What Ray tells of our job; `wanted` is how many trials at a time it would like, which other searches on the cluster look at.

    `job_name` is its key for the name in its list of jobs, the one of these that the dashboard shows."""
    name = f"digit_search {run} ({num_samples} trials)"
    return {"job_name": name, "run": run, "samples": str(num_samples), "best_so_far": BEST_SO_FAR, WANTS: str(wanted)}


class TrialBoard:
    """The actor; its methods are what the dashboard lists."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._trials: dict[int, asyncio.Future[None]] = {}

    def __repr__(self) -> str:
        return f"{self._run}: trials as tasks"

    def _outcome(self, trial: int) -> asyncio.Future[None]:
        return self._trials.setdefault(trial, asyncio.get_running_loop().create_future())

    async def trial(self, trial: int) -> None:
        """Last as long as the trial."""
        await self._outcome(trial)

    async def end(self, trial: int, error: str) -> None:
        """End the trial's task: as a failed one where there is an error."""
        outcome = self._outcome(trial)
        if outcome.done():
            return
        if error:
            outcome.set_exception(RuntimeError(error))
        else:
            outcome.set_result(None)

    async def best(self) -> None:
        """Nothing: the task's name says it."""


class BoardDisplay(Display):
    """Names the board's tasks. Nobody waits for them, and nobody is hurt where the board is gone."""

    def __init__(self, run: str) -> None:
        options = {"num_cpus": 0, "name": f"digit_search {run}", "get_if_exists": True}
        self._board = ray.remote(TrialBoard).options(**options).remote(run)

    def suggested(self, trial: int, params: TrialParams) -> None:
        values = ", ".join(f"{name} {getattr(params, name):.4g}" for name in CORE_PARAM_NAMES)
        self._board.trial.options(name=f"{trial_name(trial)}: {values}").remote(trial)

    def reported(self, trial: int, metrics: EpochMetrics, standing: Standing, *, is_best: bool) -> None:
        if is_best:
            self._board.best.options(name=f"best so far: {metrics.scored_accuracy:.4f} ({trial_name(trial)})").remote()

    def ended(self, trial: int, status: TrialStatus, error: str, standing: Standing) -> None:
        metrics = standing.last.get(trial)
        score = f" {after_epochs(metrics)}: accuracy {metrics.scored_accuracy:.4f}" if metrics else ""
        self._board.end.options(name=f"{trial_name(trial)} {status}{score}").remote(trial, error)
