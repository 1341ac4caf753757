"""What can go wrong around the trials: a worker that hangs, a Ray that died, a disk that is full."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import psutil
import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from digit_search.errors import RayLostError, StorageError
from digit_search.search.searcher import UNSAVED

LOOK_EVERY_SECONDS = 1.0
KILL_SECONDS = 60.0
"""Ray (2.60) needs 5 s to end a worker that does not listen any more."""
RAY_PROCESSES = ("gcs_server", "raylet")

logger = logging.getLogger(__name__)


class EndSearch(BaseException):
    """Ends the search for this reason, from within Tune.

    No Exception: for those Tune (2.60) stops its workers in order first, which takes 5 s, and where Ray is dead, ends this process instead.
    """

    def __init__(self, reason: StorageError | RayLostError) -> None:
        super().__init__(reason)
        self.reason = reason


def own_ray_processes() -> Mapping[int, str]:
    """By number, the processes that this process's own Ray cannot live without; none where it joined a cluster."""
    return {child.pid: child.name() for child in psutil.Process().children() if child.name() in RAY_PROCESSES}


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class LiveTrials:
    """Tune's trials that have not ended. None that has ended begins again, so that a step costs what runs, however many there were."""

    def __init__(self) -> None:
        self._live: list[Trial] = []
        self._num_seen = 0

    def of(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Those of all trials so far, to which Tune only ever adds."""
        self._live = [trial for trial in (*self._live, *trials[self._num_seen :]) if trial.status not in (Trial.TERMINATED, Trial.ERROR)]
        self._num_seen = len(trials)
        return self._live


class Watch(Callback):
    """Looks after the search between two of Tune's steps."""

    def __init__(
        self,
        trial_timeout_seconds: float,
        ray_processes: Mapping[int, str] = MappingProxyType({}),
        *,
        kill: Callable[[Any], None] = ray.kill,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is watched.

        Args:
            trial_timeout_seconds: a worker that reports nothing for this long is ended; Tune then begins its trial again.
            ray_processes: names, by number, of those that must not die.
            kill: ends an actor.
            now: the clock.
        """
        self._trial_timeout_seconds = trial_timeout_seconds
        # Tune (2.60) pickles its callbacks.
        self._ray_processes = dict(ray_processes)
        self._kill = kill
        self._now = now
        self._looked_at = float("-inf")
        self._live = LiveTrials()
        self._heard: dict[str, tuple[str, float]] = {}
        """By trial: its worker's name, since a handle would keep it alive, and when that was first seen or last heard of."""
        self._killed_at: dict[str, float] = {}
        self._num_hung: dict[str, int] = {}
        self._unsaved = ""

    def num_hung(self, trial: Trial) -> int:
        """How many workers of this trial were ended because they hung."""
        return self._num_hung.get(trial.trial_id, 0)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any) -> None:
        self._heard.pop(trial.trial_id, None)
        self._unsaved = result.get(UNSAVED, self._unsaved)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._unsaved:
            raise EndSearch(StorageError(self._unsaved))
        for pid, name in self._ray_processes.items():
            if _is_dead(pid):
                raise EndSearch(RayLostError(f"its process {name} died"))
        if self._now() - self._looked_at >= LOOK_EVERY_SECONDS:
            self._looked_at = self._now()
            self._end_hung(self._live.of(trials))

    def _end_hung(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            # Between two trials a worker has its new one already, though that does not run yet.
            worker, name = trial.temporary_state.ray_actor, trial.trial_id
            known, since = self._heard.get(name, ("", 0.0))
            if worker is None or repr(worker) != known:
                self._killed_at.pop(name, None)
                self._heard.pop(name, None)
                if worker is not None:
                    self._heard[name] = (repr(worker), self._now())
            elif name in self._killed_at:
                if self._now() - self._killed_at[name] > KILL_SECONDS:
                    raise EndSearch(RayLostError(f"it does not end a worker that hangs, that of {trial}"))
            elif self._now() - since > self._trial_timeout_seconds:
                logger.warning("%s: no report for %.0f s; its worker is ended", trial, self._now() - since)
                self._killed_at[name] = self._now()
                self._num_hung[name] = self.num_hung(trial) + 1
                self._kill(worker)
