"""Which nodes of a joined cluster can keep a run's checkpoints. A folder that each machine has for itself fails at the first checkpoint."""

import functools
import importlib.util
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from digit_search.errors import ResourceError, StorageError
from digit_search.files.atomic_io import write_atomically
from digit_search.files.object_store import Remote, is_uri

ANSWER_SECONDS = 120.0
"""The first worker of a node may have to fetch our code and import Ray from a slow disk."""
NODE_ID_LABEL = "ray.io/node-id"
UNREACHED = "unreached"
"""Key in a trial's report: why the node of its `node_id` cannot keep the trial's checkpoints."""
NEEDED = ("torch", "torchvision", "pyarrow", "optuna", "pydantic")

logger = logging.getLogger(__name__)


def probe(folder: str, token: str, node: str) -> str:
    """On a node: read the driver's mark in the run's folder and write one beside it. Returns what is wrong, "" for nothing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed there (pip install -r requirements.txt)"
    if is_uri(folder):
        return _probe_store(Remote(folder), _mark(token, node))
    try:
        found = (Path(folder) / _mark(token)).read_text()
        (Path(folder) / _mark(token, node)).write_text(found)
    except (OSError, ValueError) as error:
        return f"{getattr(error, 'strerror', None) or error}"
    return ""


@functools.cache
def problem_here(folder: str, token: str) -> tuple[str, str]:
    """The id of this process's node, and why it cannot use the run's folder. Checked once per process.

    A waiting trial may be put on a node that has just joined and has not answered its probe yet.
    """
    node = ray.get_runtime_context().get_node_id()
    return node, probe(folder, token, node)


def _probe_store(place: Remote, mark: str) -> str:
    try:
        place.put(mark, b"reached")
        place.delete(mark)
    except StorageError as error:
        return str(error)
    return ""


def _mark(token: str, node: str = "") -> str:
    return f".reach-{token[:8]}{'-' if node else ''}{node}"


class StorageProbe:
    """Asks each node once, and remembers which of them can keep checkpoints.

    Attributes:
        token: what the mark in the folder contains; it is new for each search.
        good: ids of the nodes that can keep checkpoints.
        bad: by node id, why a node cannot.
    """

    def __init__(self, folder: str, say: Callable[[str], None] = logger.warning, ask: Callable[[str, str, str], Any] | None = None) -> None:
        """`folder` is where the trials' checkpoints go, a path or a URI; `ask(folder, token, node)` starts a probe."""
        self._folder = folder
        self._say = say
        self._ask = ask or _ask_node
        self.token = uuid.uuid4().hex
        self.good: set[str] = set()
        self.bad: dict[str, str] = {}
        self._asked: dict[Any, tuple[str, float]] = {}
        """The node of each probe that has not answered, and when it started."""

    def begin(self) -> None:
        """Leave the mark that the nodes look for."""
        if not is_uri(self._folder):
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            write_atomically(Path(self._folder) / _mark(self.token), self.token)

    def end(self) -> None:
        """Delete all marks."""
        if not is_uri(self._folder):
            for path in Path(self._folder).glob(f"{_mark(self.token)}*"):
                path.unlink(missing_ok=True)

    def look(self, nodes: Iterable[str]) -> None:
        """Ask the nodes that are new, and take in the answers that have arrived. This does not wait."""
        known = self.good | self.bad.keys() | {node for node, _ in self._asked.values()}
        for node in nodes:
            if node not in known:
                self._asked[self._ask(self._folder, self.token, node)] = (node, time.monotonic())
        if not self._asked:
            return
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        late = [ref for ref, (_, at) in self._asked.items() if ref not in answered and time.monotonic() - at > ANSWER_SECONDS]
        for ref in [*answered, *late]:
            node, _ = self._asked.pop(ref)
            self._take(node, f"no answer for {ANSWER_SECONDS:g} s" if ref in late else self._answer(ref, node))

    def _answer(self, ref: Any, node: str) -> str:
        try:
            problem = str(ray.get(ref))
        except RayError as error:
            return str(error).partition("\n")[0]
        if not problem and not is_uri(self._folder) and not (Path(self._folder) / _mark(self.token, node)).exists():
            problem = "it wrote there, but this machine does not see it: another folder of the same name"
        return problem

    def reported_bad(self, node: str, problem: str) -> None:
        """Take in what a trial found on its node.

        Raises:
            StorageError: if that node could keep checkpoints before, so that avoiding it would not help.
        """
        if node in self.good:
            raise StorageError(f"{self._folder}: {problem}")
        self._take(node, problem)

    def _take(self, node: str, problem: str) -> None:
        if node in self.bad:
            return
        if not problem:
            self.good.add(node)
            return
        self.bad[node] = problem
        self._say(f"node {_host(node)} is not used: {self._folder}: {problem}")

    def wait(self, nodes: Mapping[str, Mapping[str, float]]) -> None:
        """Ask all nodes, and wait for their answers.

        Raises:
            ResourceError: if one cannot keep checkpoints, with what to do.
        """
        say, self._say = self._say, lambda text: None
        try:
            while True:
                self.look(nodes)
                if not self._asked:
                    break
                time.sleep(0.1)
        finally:
            self._say = say
        if self.bad:
            problems = "; ".join(f"{_host(node)}: {problem}" for node, problem in self.bad.items())
            raise ResourceError(
                f"{self._folder}: {len(self.bad)} of the cluster's {len(nodes)} nodes cannot keep checkpoints there ({problems}). "
                "Give --results a folder that all nodes share (NFS, for example), or s3://... or gs://..."
            )


def _host(node: str) -> str:
    entries = [entry for entry in ray.nodes() if entry["NodeID"] == node] if ray.is_initialized() else []
    return f"{entries[0]['NodeManagerHostname']} ({entries[0]['NodeManagerAddress']})" if entries else node[:8]


def _ask_node(folder: str, token: str, node: str) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task = ray.remote(probe).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy, name=f"digit_search probe of {node[:8]}")
    return task.remote(folder, token, node)


class AvoidNodes(PlacementGroupFactory):
    """The resources of a trial, on any node but the bad ones. `bad` is looked at each time Tune asks for a placement."""

    def __init__(self, resources: Mapping[str, float], bad: Mapping[str, str]) -> None:
        super().__init__([dict(resources)])
        self._bad = bad

    def to_placement_group(self) -> PlacementGroup:
        # It stays equal to the placement before a node was found bad, so that Tune keeps using its workers.
        selector = [{NODE_ID_LABEL: f"!in({','.join(sorted(self._bad))})"}] if self._bad else None
        return placement_group(self.bundles, strategy=self.strategy, bundle_label_selector=selector)
