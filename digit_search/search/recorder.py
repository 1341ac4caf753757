"""From Tune's callbacks to our own records: every report and every end is written down as it happens."""

import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from digit_search.cluster.storage_probe import UNREACHED
from digit_search.cluster.watchdog import EndSearch, LiveTrials
from digit_search.errors import RayLostError
from digit_search.monitor.monitor import LiveSearch
from digit_search.records import EpochMetrics, RungDecision, TrialStatus
from digit_search.run.events import EventLog
from digit_search.run.layout import trial_name
from digit_search.search.searcher import FAILED, UNSAVED


class NodeLabels:
    """Names for Ray's nodes that repeat from run to run: the host, numbered from the second node on the same host."""

    def __init__(self, hosts: Callable[[], dict[str, str]] | None = None) -> None:
        """`hosts` maps node ids to host names; Ray's own by default."""
        self._hosts = hosts or _hosts_of_ray
        self._labels: dict[str, str] = {}

    def label(self, node_id: str) -> str:
        """The node's name; the first one seen on a host bears the host's."""
        if node_id not in self._labels:
            host = self._hosts().get(node_id, "unknown")
            taken = sum(1 for label in self._labels.values() if label.partition("#")[0] == host)
            self._labels[node_id] = host if taken == 0 else f"{host}#{taken + 1}"
        return self._labels[node_id]


def _hosts_of_ray() -> dict[str, str]:
    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}


class Recorder(Callback):
    """Appends what trials report to the event log and shows it.

    A report that is known already is passed over: a worker that takes over a trial repeats the last one of the worker before. All of this
    runs in Tune's loop between two of its steps, so a Ctrl-C that was noticed (`is_interrupted`) is raised here, where no record and no
    journal is half-written.
    """

    def __init__(
        self,
        events: EventLog,
        live: LiveSearch,
        *,
        max_epochs: float,
        known_epochs: Mapping[int, float],
        decisions: MutableMapping[int, RungDecision],
        is_over: Callable[[], bool],
        is_interrupted: Callable[[], bool],
        on_end: Callable[[int], None],
        num_hung: Callable[[Trial], int] = lambda trial: 0,
    ) -> None:
        """Take what every callback needs.

        Args:
            events: where reports go.
            live: what shows them.
            max_epochs: after which a trial is complete.
            known_epochs: the last report of each trial that began in an earlier process.
            decisions: where the scheduler leaves what it decided upon a trial's present report.
            is_over: whether the time budget is spent.
            is_interrupted: whether the user ended the search.
            on_end: hears of the number of each trial that ended.
            num_hung: how many workers of a trial were ended because they hung.
        """
        self._events = events
        self._live = live
        self._max_epochs = max_epochs
        self._is_over = is_over
        self._is_interrupted = is_interrupted
        self._on_end = on_end
        self._num_hung = num_hung
        self._recovered: dict[str, int] = {}
        """By trial: Tune's step in which it was last begun again."""
        self._trials = LiveTrials()
        self._nodes = NodeLabels()
        self._epochs = dict(known_epochs)
        self._decisions = decisions

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any) -> None:
        if not {FAILED, UNSAVED, UNREACHED}.isdisjoint(result):
            return
        number = trial.config["trial"]
        metrics = EpochMetrics(**result["metrics"])
        decision = self._decisions.pop(number, None)
        if metrics.epoch <= self._epochs.get(number, 0.0):
            return
        self._epochs[number] = metrics.epoch
        self._events.epoch(number, metrics, result["device"], self._nodes.label(result["node_id"]), at=time.time(), decision=decision)
        self._live.reported(number, metrics)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        error = (trial.last_result or {}).get(FAILED, "")
        epochs = self._epochs.get(trial.config["trial"], 0.0)
        if error:
            status = TrialStatus.FAILED
        elif epochs >= self._max_epochs:
            status = TrialStatus.COMPLETED
        elif self._is_over():
            status = TrialStatus.INTERRUPTED
        else:
            status = TrialStatus.STOPPED
        self._end(trial, status, error)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if self._recovered.get(trial.trial_id) == iteration:
            # Tune (2.60) takes the death of a worker that was just given its next trial for two: it begins the trial again, then fails it,
            # and its books are wrong from there on.
            raise EndSearch(RayLostError("a worker died between two trials"))
        self._end(trial, TrialStatus.FAILED, self._how_it_died(trial))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._recovered[trial.trial_id] = iteration

    def _how_it_died(self, trial: Trial) -> str:
        hung = self._num_hung(trial)
        died = trial.run_metadata.num_failures - hung
        ways = [f"died {_times(died)}"] if died else []
        ways += [f"sent no report for search.trial_timeout and was ended {_times(hung)}"] if hung else []
        return f"its worker {' and '.join(ways)}; see tune/{trial_name(trial.config['trial'])}/error.txt"

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._live.step({trial.config["trial"] for trial in self._trials.of(trials) if trial.status == Trial.RUNNING})
        if self._is_interrupted():
            raise KeyboardInterrupt

    def _end(self, trial: Trial, status: TrialStatus, error: str) -> None:
        number = trial.config["trial"]
        self._events.trial_ended(number, status, at=time.time(), error=error)
        self._live.ended(number, status, error)
        self._on_end(number)


def _times(number: int) -> str:
    return f"{number} time{'s' if number != 1 else ''}"


class EndOfTrial(Stopper):
    """Stops a trial that reported its failure, and every trial at its next report once the search is over."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return FAILED in result or self._is_over()

    def stop_all(self) -> bool:
        return False
