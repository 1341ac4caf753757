"""Notices workers that hang and a Ray that died."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import ray

from digit_search.errors import RayLostError

LOOK_EVERY_SECONDS = 1.0
KILL_SECONDS = 60.0
"""Ray (2.60) needs 5 s to end a worker that no longer responds."""
RAY_PROCESSES = ("gcs_server", "raylet")

logger = logging.getLogger(__name__)


def own_ray_processes() -> Mapping[int, str]:
    """The processes without which the Ray that this process started cannot run: names by process id. Empty if it joined a cluster."""
    return {child.pid: name for child in psutil.Process().children() if (name := child.name().removesuffix(".exe")) in RAY_PROCESSES}


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class Watchdog:
    """Ends workers that send no report for too long, and notices when Ray's own processes die."""

    def __init__(
        self,
        trial_timeout_seconds: float,
        ray_processes: Mapping[int, str],
        *,
        kill: Callable[[Any], None] = ray.kill,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """A worker without a report for `trial_timeout_seconds` is ended; Tune then starts its trial again.

        `ray_processes` are the names, by process id, of the processes that must not die.
        """
        self._trial_timeout_seconds = trial_timeout_seconds
        self._ray_processes = ray_processes
        self._kill = kill
        self._now = now
        self._looked_at = float("-inf")
        self._last_seen: dict[int, tuple[str, float]] = {}
        """By trial: the repr of its worker, and when that was first seen or last reported. The worker's handle would keep it alive."""
        self._killed_at: dict[int, float] = {}
        self._num_hung: dict[int, int] = {}

    def num_hung(self, trial: int) -> int:
        """How many workers of this trial were ended because they hung."""
        return self._num_hung.get(trial, 0)

    def saw_report(self, trial: int) -> None:
        """Start the trial's time again."""
        self._last_seen.pop(trial, None)

    def look(self, workers: Callable[[], Mapping[int, Any]]) -> None:
        """Check Ray's processes, and once a second the workers.

        `workers` returns the actor of each trial that has not ended, by trial number; None for a trial that has none now.

        Raises:
            RayLostError: if one of Ray's processes died, or Ray does not end a worker that hangs.
        """
        for pid, name in self._ray_processes.items():
            if _is_dead(pid):
                raise RayLostError(f"its process {name} died")
        if self._now() - self._looked_at >= LOOK_EVERY_SECONDS:
            self._looked_at = self._now()
            for trial, worker in workers().items():
                self._look_at(trial, worker)

    def _look_at(self, trial: int, worker: Any) -> None:
        known, since = self._last_seen.get(trial, ("", 0.0))
        if worker is None or repr(worker) != known:
            self._killed_at.pop(trial, None)
            self._last_seen.pop(trial, None)
            if worker is not None:
                self._last_seen[trial] = (repr(worker), self._now())
        elif trial in self._killed_at:
            if self._now() - self._killed_at[trial] > KILL_SECONDS:
                raise RayLostError(f"it does not end a worker that hangs, that of trial {trial}")
        elif self._now() - since > self._trial_timeout_seconds:
            logger.warning("trial %s: no report for %.0f s; its worker is ended", trial, self._now() - since)
            self._killed_at[trial] = self._now()
            self._num_hung[trial] = self.num_hung(trial) + 1
            self._kill(worker)
