"""Ray Tune runs the search; this is where its hooks become events of the run, and the run's decisions become Tune's.

`SearchDriver` is everything that happens between Tune and the run. The searcher and the scheduler that Tune wants only call it. Whatever
goes wrong inside a hook ends the search as `EndSearch`, with the error itself as the reason.
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar, cast

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from digit_search.cluster.capacity import Capacity
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.storage_probe import UNREACHED, AvoidNodes
from digit_search.cluster.watchdog import Watchdog
from digit_search.errors import RayLostError, StorageError
from digit_search.private_api import worker_of
from digit_search.records import FINISHED, EpochMetrics, TrialStatus
from digit_search.run.active_run import ActiveRun
from digit_search.run.events import EpochReported, TrialEnded, TrialStarted
from digit_search.run.layout import trial_name
from digit_search.search.resume import search_plan
from digit_search.search.scheduler import Asha
from digit_search.search.study import Objective, trial_seed
from digit_search.search.suggest import Suggester
from digit_search.search.time_budget import TimeBudget
from digit_search.search.trainable import FAILED, UNSAVED

TUNE_ENVIRONMENT = {
    # The new output prints tables whatever the verbosity is; the old one is silent at verbosity 0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Our signal handlers decide what Ctrl-C means.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's CSV, JSON and TensorBoard loggers would repeat what our own observers write.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Only our limit decides how many trials may wait: those that wait are what an autoscaler starts nodes for.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # A trial that failed before its first epoch has no score to report.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
}


class EndSearch(BaseException):
    """Ends the search from inside one of Tune's hooks, because of `reason`.

    It is not an Exception, because Tune (2.60) catches those: it stops its workers in order first, which takes 5 s, and where Ray is dead
    it ends this process.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


Hook = TypeVar("Hook", bound=Callable[..., Any])


def _hook(method: Hook) -> Hook:
    """Let an error inside one of Tune's hooks end the search with that error as the reason."""

    @functools.wraps(method)
    def guarded(self: object, *given: Any, **named: Any) -> Any:
        try:
            return method(self, *given, **named)
        except Exception as error:
            raise EndSearch(error) from error

    return cast(Hook, guarded)


class _Stateless:
    """Tune (2.60) pickles its parts into the run's folder. We read nothing back from there, so we write nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class NodeLabels:
    """Names of Ray's nodes that are the same from run to run: the host, with a number from the second node on the same host."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}

    def label(self, node_id: str) -> str:
        """The node's name. The first node seen on a host has the host's name."""
        if node_id not in self._labels:
            host = _hosts_of_ray().get(node_id, "unknown")
            taken = sum(1 for label in self._labels.values() if label.partition("#")[0] == host)
            self._labels[node_id] = host if taken == 0 else f"{host}#{taken + 1}"
        return self._labels[node_id]


def _hosts_of_ray() -> Mapping[str, str]:
    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}


class SearchDriver(_Stateless, Callback):
    """Suggests trials, records what they report, and decides when they end.

    Attributes:
        limiter: lets at most as many trials run at a time as fit; it asks the driver for them.
    """

    def __init__(self, run: ActiveRun, budget: TimeBudget, watchdog: Watchdog, num_workers: int, capacity: Capacity | None = None) -> None:
        """Run the trials of `run` that have not finished, at first `num_workers` at a time; `capacity` is that of a joined cluster."""
        settings, state = run.settings, run.state
        plan = search_plan(settings, state)
        self._run = run
        self._budget = budget
        self._watchdog = watchdog
        self._capacity = capacity
        self.limiter = ConcurrencyLimiter(_DrivenSearcher(self), num_workers)
        self._left = list(plan.numbers)
        self._objective = Objective.of(settings)
        finished = [record for record in state.trials if record.status in FINISHED]
        self._suggester = Suggester(plan, self._objective, state.warm, finished)
        # Every result is compared with the notebook's configuration, so that one is trained to the end.
        never_stopped = {0} if settings.search.baseline else ()
        self._asha = Asha(settings.search.asha, self._objective, earlier=state.rungs, never_stopped=never_stopped)
        self._nodes = NodeLabels()
        self._live: dict[int, Trial] = {}
        """Tune's trials that have not ended, so that a step costs the same however many trials there were."""
        self._errors: dict[int, str] = {}
        """What a trial reported as the reason of its failure."""
        self._stopped: set[int] = set()
        self._num_deaths: dict[int, int] = {}
        self._recovered_in: dict[int, int] = {}
        """By trial: the step of Tune in which it was last started again."""
        self._sent_back: set[int] = set()

    def next_trial(self) -> dict[str, Any] | None:
        """The configuration of the next trial: its parameters, `trial` and `seed`. None if there is none."""
        if not self._left or self._budget.is_spent():
            return None
        number = self._left.pop(0)
        suggested = self._suggester.suggest(number)
        seed = trial_seed(self._run.settings.seed, number)
        self._run.record(TrialStarted(trial=number, params=suggested.params, seed=seed, origin=suggested.origin))
        return {"trial": number, "seed": seed, **asdict(suggested.params)}

    def added(self, trial: Trial) -> None:
        """Tune knows a new trial."""
        self._live[_number(trial)] = trial

    def reported(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Record what a worker reports; return whether the trial continues.

        Raises:
            StorageError: if the worker cannot save its checkpoints.
        """
        number = _number(trial)
        self._watchdog.saw_report(number)
        if UNREACHED in result:
            self._send_back(trial, result["node_id"], result[UNREACHED])
            return True
        if UNSAVED in result:
            raise StorageError(result[UNSAVED])
        if FAILED in result:
            self._errors[number] = result[FAILED]
            return False
        metrics: EpochMetrics = result["metrics"]
        step = self._objective.step(metrics)
        last = self._run.state.last_report(number)
        # A worker that takes over a trial repeats the last report of the worker before.
        if last is None or metrics.epoch > last.epoch:
            decision = self._asha.decide(number, step, self._objective.score(metrics))
            if decision and not decision.passed:
                self._stopped.add(number)
            node = self._nodes.label(result["node_id"])
            self._run.record(EpochReported(trial=number, metrics=metrics, device=result["device"], node=node, rung=decision))
        return number not in self._stopped and step < self._objective.max_step and not self._budget.is_spent()

    def _send_back(self, trial: Trial, node: str, problem: str) -> None:
        """Let a trial whose node cannot keep checkpoints start again on another one. This is not one of its failures."""
        assert self._capacity is not None  # Only workers of a joined cluster look for the run's folder.
        self._capacity.probe.reported_bad(node, problem)
        # Its worker raises next, and Tune (2.60) counts that before it asks whether the trial may start again.
        trial.max_failures += 1
        self._sent_back.add(_number(trial))

    @_hook
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = _number(trial)
        last = self._run.state.last_report(number)
        if number in self._errors:
            status = TrialStatus.FAILED
        elif last and self._objective.step(last) >= self._objective.max_step:
            status = TrialStatus.COMPLETED
        elif number in self._stopped:
            status = TrialStatus.STOPPED
        else:
            status = TrialStatus.INTERRUPTED
        self._end(number, status, self._errors.get(number, ""))

    @_hook
    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's worker died, and Tune starts the trial again."""
        number = _number(trial)
        self._recovered_in[number] = iteration
        if number in self._sent_back:
            self._sent_back.remove(number)
        else:
            self._num_deaths[number] = self._num_deaths.get(number, 0) + 1

    @_hook
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's worker died once too often."""
        number = _number(trial)
        if self._recovered_in.get(number) == iteration:
            # Tune (2.60) takes the death of a worker that was just given its next trial for two. It starts the trial again, then fails it,
            # and its books are wrong from then on.
            raise RayLostError("a worker died between two trials")
        self._end(number, TrialStatus.FAILED, self._how_it_died(number))

    def _how_it_died(self, number: int) -> str:
        hung = self._watchdog.num_hung(number)
        died = self._num_deaths.get(number, 0) + 1 - hung
        ways = [f"died {_times(died)}"] if died else []
        ways += [f"sent no report for search.trial_timeout and was ended {_times(hung)}"] if hung else []
        return f"its worker {' and '.join(ways)}; see tune/{trial_name(number)}/error.txt"

    def _end(self, number: int, status: TrialStatus, error: str) -> None:
        self._live.pop(number, None)
        self._run.record(TrialEnded(trial=number, status=status, error=error))
        self._suggester.learn(self._run.state.trial(number))

    @_hook
    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._capacity and (limit := self._capacity.limit()) is not None:
            self.limiter.set_max_concurrency(limit)

    @_hook
    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Nothing is half-written now, so the search may end here: because the user wants it, or because Ray died."""
        self._run.step({number for number, trial in self._live.items() if trial.status == Trial.RUNNING})
        # First, because a signal to all processes of a container or a batch job ends Ray's as well.
        self._run.interrupts.check()
        self._watchdog.look(lambda: {number: worker_of(trial) for number, trial in self._live.items()})


def _number(trial: Trial) -> int:
    number: int = trial.config["trial"]
    return number


def _times(number: int) -> str:
    return f"{number} time{'s' if number != 1 else ''}"


class _DrivenSearcher(_Stateless, Searcher):
    def __init__(self, driver: SearchDriver) -> None:
        super().__init__()
        self._driver = driver

    @_hook
    def suggest(self, trial_id: str) -> Any:
        return self._driver.next_trial() or Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _DrivenScheduler(_Stateless, FIFOScheduler):
    def __init__(self, driver: SearchDriver, placement: PlacementGroupFactory | None) -> None:
        super().__init__()
        self._driver = driver
        self._placement = placement

    @_hook
    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        self._driver.added(trial)
        if self._placement is not None:
            # What Tune (2.60) gives a trial is a copy of the trainable's resources, which would not notice bad nodes.
            trial.update_resources(self._placement)

    @_hook
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        continues = self._driver.reported(trial, result)
        return TrialScheduler.CONTINUE if continues else TrialScheduler.STOP


def make_tuner(run: ActiveRun, driver: SearchDriver, trainable: Any, plan: WorkerPlan, bad_nodes: Mapping[str, str] | None) -> tune.Tuner:
    """Tune, ready to run the driver's trials.

    `bad_nodes` are the nodes of a joined cluster to avoid. There may be more of them later. None for a Ray of our own.
    """
    os.environ.update(TUNE_ENVIRONMENT)
    resources = {"CPU": float(plan.cpus_per_trial), "GPU": plan.gpus_per_trial}
    placement = AvoidNodes(resources, bad_nodes) if bad_nodes is not None else None
    search = run.settings.search
    return tune.Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=driver.limiter,
            scheduler=_DrivenScheduler(driver, placement),
            num_samples=search.samples,
            # A new process would import torch again for every trial, four seconds each.
            reuse_actors=True,
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
        ),
        run_config=RunConfig(
            name=run.folder.tune.name,
            storage_path=str(run.folder.path.resolve()),
            callbacks=[driver],
            failure_config=FailureConfig(max_failures=search.max_failures),
            verbose=0,
        ),
    )


def _name_trial(trial: Trial) -> str:
    return trial_name(_number(trial))
