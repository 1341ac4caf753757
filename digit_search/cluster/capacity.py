"""How many trials a joined cluster can run at a time: its nodes come and go, and other searches want their share."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from digit_search.cluster.placement import WorkerPlan, counted, trials_that_fit
from digit_search.cluster.storage_probe import StorageProbe
from digit_search.errors import RayLostError
from digit_search.private_api import search_jobs

LOOK_EVERY_SECONDS = 2.0
PATIENCE_SECONDS = 600.0
"""A cloud node with a GPU is up within minutes. One that is not up after this long will not come."""
WANTS = "digit_search_wants"
"""Key in a job's metadata: how many trials at a time its search would like to run."""
NODE_GROUP_LABEL = "ray.io/node-group"
"""A label of nodes that Ray's cluster launcher or KubeRay started, where an autoscaler may start more (Ray 2.60)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """What a cluster offers at one moment."""

    nodes: Mapping[str, Mapping[str, float]]
    """Resources by node id, of the nodes that are alive."""
    may_grow: bool
    wants: Sequence[int]
    """How many trials at a time each search on the cluster would like to run, the oldest search first."""
    own: int
    """The index of this search in `wants`."""


def snapshot_cluster() -> ClusterSnapshot:
    """Ask Ray's head. Raises RayError if it does not answer."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    searches = {job: _wanted(metadata) for job, metadata in search_jobs().items() if WANTS in metadata}
    own_job = ray.get_runtime_context().get_job_id()
    searches.setdefault(own_job, 1)
    order = sorted(searches)
    return ClusterSnapshot(
        nodes={node["NodeID"]: node["Resources"] for node in alive},
        may_grow=any(NODE_GROUP_LABEL in node["Labels"] for node in alive),
        wants=[searches[job] for job in order],
        own=order.index(own_job),
    )


def _wanted(metadata: Mapping[str, str]) -> int:
    """What another search says it wants; one of another version may say it in another way."""
    text = metadata[WANTS]
    return max(int(text), 1) if text.isdecimal() and len(text) < 10 else 1


def fair_shares(capacity: int, wants: Sequence[int]) -> list[int]:
    """Deal out `capacity` one by one, in turn, to those that want more. Each gets at least one."""
    shares = [0] * len(wants)
    for _ in range(min(capacity, sum(wants))):
        unsatisfied = [index for index, want in enumerate(wants) if shares[index] < want]
        shares[min(unsatisfied, key=shares.__getitem__)] += 1
    return [max(share, 1) for share in shares]


class Capacity:
    """How many trials may run now: as many as fit on the nodes that can keep checkpoints, and as many again for an autoscaler."""

    def __init__(
        self,
        plan: WorkerPlan,
        *,
        most: int,
        probe: StorageProbe,
        say: Callable[[str], None],
        look: Callable[[], ClusterSnapshot] = snapshot_cluster,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`most`: never more trials at a time than this; `say` tells the user about every change."""
        self._plan = plan
        self._most = most
        self.probe = probe
        self._say = say
        self._look = look
        self._now = now
        self._looked_at = float("-inf")
        self._grown_at = now()
        self._nodes: frozenset[str] = frozenset()
        self._last_text = ""

    def limit(self) -> int | None:
        """How many trials may run at a time; None within `LOOK_EVERY_SECONDS` of the last call, or if the cluster does not answer.

        Raises:
            RayLostError: if no node has had capacity for a trial for `PATIENCE_SECONDS`.
        """
        if self._now() - self._looked_at < LOOK_EVERY_SECONDS:
            return None
        self._looked_at = self._now()
        try:
            cluster = self._look()
        except RayError as error:
            # Tune notices by itself when the cluster is gone.
            logger.warning("the cluster does not answer: %s", error)
            return None
        self.probe.look(cluster.nodes)
        return self._limit_on(cluster)

    def _limit_on(self, cluster: ClusterSnapshot) -> int:
        usable = {node: resources for node, resources in cluster.nodes.items() if node in self.probe.good}
        if usable.keys() - self._nodes:
            self._grown_at = self._now()
        self._nodes = frozenset(usable)
        fit = trials_that_fit(self._plan.cpus_per_trial, self._plan.gpus_per_trial, list(usable.values()))
        waited = self._now() - self._grown_at
        if not fit and waited > PATIENCE_SECONDS:
            raise RayLostError(f"no node of the cluster has had room for a trial for {waited / 60:.0f} minutes")
        # Tune asks Ray for a placement group for every trial that may start, and an autoscaler starts nodes for those that wait. At most as
        # many wait as run, because their parameters are suggested before they wait.
        ahead = max(fit, 1) if cluster.may_grow and waited <= PATIENCE_SECONDS else 0
        share = fair_shares(fit + ahead, cluster.wants)[cluster.own]
        limit = max(1, min(share, self._most))
        self._tell(len(usable), len(cluster.wants), min(limit, max(fit, 1)))
        return limit

    def _tell(self, nodes: int, searches: int, limit: int) -> None:
        others = f", shared by {searches} searches" if searches > 1 else ""
        text = f"the cluster has {counted(nodes, 'node')}{others}: {counted(limit, 'trial')} at a time"
        if self._last_text and text != self._last_text:
            self._say(text)
        self._last_text = text
