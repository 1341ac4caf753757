"""How many trials at a time a joined cluster has room for: its nodes come and go, and other searches want their share."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter

from digit_search.cluster.placement import WorkerPlan, trials_that_fit
from digit_search.cluster.storage_probe import UNREACHED, StorageProbe
from digit_search.cluster.watchdog import EndSearch
from digit_search.errors import RayLostError, StorageError

LOOK_EVERY_SECONDS = 2.0
PATIENCE_SECONDS = 600.0
"""A cloud's node with a GPU is there in some minutes; one that is not there by then will not come."""
WANTS = "digit_search_wants"
"""In a job's metadata: how many trials at a time its search would like."""
NODE_GROUP_LABEL = "ray.io/node-group"
"""On nodes that Ray's cluster launcher or KubeRay started, so that an autoscaler may start more (Ray 2.60)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """What a cluster offers at this moment."""

    nodes: Mapping[str, Mapping[str, float]]
    """Resources by node id; those that live."""
    may_grow: bool
    wants: Sequence[int]
    """How many trials at a time each search on the cluster would like, the oldest search first."""
    own: int
    """Which of these is ours."""


def snapshot_cluster() -> ClusterSnapshot:
    """Ask Ray's head.

    Raises:
        RayError: if it does not answer.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    jobs = ray._private.worker.global_worker.gcs_client.get_all_job_info(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True, timeout=5.0
    )
    searches = {
        job.hex(): _wanted(info.config.metadata) for job, info in jobs.items() if not info.is_dead and WANTS in info.config.metadata
    }
    mine = ray.get_runtime_context().get_job_id()
    searches.setdefault(mine, 1)
    order = sorted(searches)
    return ClusterSnapshot(
        nodes={node["NodeID"]: node["Resources"] for node in alive},
        may_grow=any(NODE_GROUP_LABEL in node["Labels"] for node in alive),
        wants=[searches[job] for job in order],
        own=order.index(mine),
    )


def _wanted(metadata: Mapping[str, str]) -> int:
    """What another search says of itself; other versions may say it otherwise."""
    text = metadata[WANTS]
    return max(int(text), 1) if text.isdecimal() and len(text) < 10 else 1


def fair_shares(room: int, wants: Sequence[int]) -> list[int]:
    """Deal `room` out one by one, in turn, to those that want more; at least one to each."""
    shares = [0] * len(wants)
    left = room
    while left > 0 and any(share < want for share, want in zip(shares, wants, strict=True)):
        for index, want in enumerate(wants):
            if left > 0 and shares[index] < want:
                shares[index] += 1
                left -= 1
    return [max(share, 1) for share in shares]


class CapacityCallback(Callback):
    """Lets as many trials run as the cluster has room for now, and asks its autoscaler for as much again.

    A trial that finds its node unable to keep checkpoints is begun again on another, which does not count as one of its failures.
    """

    def __init__(
        self,
        limiter: ConcurrencyLimiter,
        plan: WorkerPlan,
        *,
        most: int,
        reach: StorageProbe,
        tell: Callable[[str], None],
        look: Callable[[], ClusterSnapshot] = snapshot_cluster,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is needed.

        Args:
            limiter: what lets trials begin.
            plan: what one trial is given.
            most: never more trials at a time than this.
            reach: which nodes reach the run's folder.
            tell: hears of every change.
            look: asks the cluster.
            now: the clock.
        """
        self._limiter = limiter
        self._plan = plan
        self._most = most
        self._reach = reach
        self._tell = tell
        self._look = look
        self._now = now
        self._looked_at = float("-inf")
        self._grown_at = now()
        self._nodes: frozenset[str] = frozenset()
        self._told = ""
        self._sent_back: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._now() - self._looked_at < LOOK_EVERY_SECONDS:
            return
        self._looked_at = self._now()
        try:
            cluster = self._look()
        except RayError as error:
            # Tune notices by itself when the cluster is gone.
            logger.warning("the cluster does not say how it stands: %s", error)
            return
        self._reach.look(cluster.nodes)
        self._adapt(cluster)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any) -> None:
        if UNREACHED not in result:
            return
        try:
            self._reach.sent_back(result["node_id"], result[UNREACHED])
        except StorageError as error:
            raise EndSearch(error) from None
        # Its worker raises next, and Tune (2.60) counts that before it asks whether the trial may go on.
        trial.max_failures += 1
        self._sent_back.add(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._sent_back:
            self._sent_back.remove(trial.trial_id)
            trial.max_failures -= 1
            trial.run_metadata.num_failures -= 1

    def _adapt(self, cluster: ClusterSnapshot) -> None:
        usable = {node: resources for node, resources in cluster.nodes.items() if node in self._reach.good}
        if usable.keys() - self._nodes:
            self._grown_at = self._now()
        self._nodes = frozenset(usable)
        fit = trials_that_fit(self._plan.cpus_per_trial, self._plan.gpus_per_trial, list(usable.values()))
        waited = self._now() - self._grown_at
        if not fit and waited > PATIENCE_SECONDS:
            raise EndSearch(RayLostError(f"no node of the cluster has had room for a trial for {waited / 60:.0f} minutes"))
        # Tune asks Ray for a placement group for every trial that may begin: those that wait are what the autoscaler starts nodes for. Not
        # more than as many as run, since their parameters are suggested before they wait.
        ahead = max(fit, 1) if cluster.may_grow and waited <= PATIENCE_SECONDS else 0
        share = fair_shares(fit + ahead, cluster.wants)[cluster.own]
        limit = max(1, min(share, self._most))
        self._limiter.set_max_concurrency(limit)
        self._say(len(usable), len(cluster.wants), min(limit, max(fit, 1)))

    def _say(self, nodes: int, searches: int, limit: int) -> None:
        others = f", {searches} searches share them" if searches > 1 else ""
        text = f"the cluster has {nodes} node{'s' if nodes != 1 else ''}{others}: {limit} trial{'s' if limit != 1 else ''} at a time"
        if text != self._told and self._told:
            self._tell(text)
        self._told = text
