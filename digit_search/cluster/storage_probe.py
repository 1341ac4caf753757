"""Which nodes of a joined cluster can keep a run's checkpoints: one that a machine has for itself would fail at the first of them."""

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
"""A node's first worker may have to fetch our code and import Ray from a slow disk."""
NODE_ID_LABEL = "ray.io/node-id"
UNREACHED = "unreached"
"""A result with this key says that the node of its `node_id` cannot keep the trial's checkpoints, and why."""
NEEDED = ("torch", "torchvision", "pyarrow", "optuna", "pydantic")

logger = logging.getLogger(__name__)


def probe(folder: str, token: str, node: str) -> str:
    """On a node: read what the driver wrote into the run's folder and write the same beside it; return what is wrong, "" for nothing."""
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
    """The node that this process is on, and what keeps it from the run's folder; asked once a process.

    A trial may wait for a place, and be put on a node that joins before that one's probe has answered.
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
    """Asks each node once, and keeps trials away from those that cannot."""

    def __init__(
        self, folder: str, tell: Callable[[str], None] = logger.warning, ask: Callable[[str, str, str], Any] | None = None
    ) -> None:
        """`folder` is where the trials' checkpoints go, a path or a URI; `ask(folder, token, node)` begins a probe."""
        self._folder = folder
        self._tell = tell
        self._ask = ask or _ask_node
        self.token = uuid.uuid4().hex
        """What the mark holds that this search leaves in the folder."""
        self.good: set[str] = set()
        self.bad: dict[str, str] = {}
        """Why not, by node."""
        self._asked: dict[Any, tuple[str, float]] = {}
        """The node that a probe runs on, and when it began."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune (2.60) pickles its callbacks; what is asked just now is nobody else's business.
        return self.__dict__ | {"_asked": {}, "_tell": None, "_ask": None}

    def begin(self) -> None:
        """Leave the mark that the nodes look for."""
        if not is_uri(self._folder):
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            write_atomically(Path(self._folder) / _mark(self.token), self.token)

    def end(self) -> None:
        """Take all marks away."""
        if not is_uri(self._folder):
            for path in Path(self._folder).glob(f"{_mark(self.token)}*"):
                path.unlink(missing_ok=True)

    def look(self, nodes: Iterable[str]) -> None:
        """Ask nodes that are new, and take in what others have answered; nobody waits."""
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
            problem = ray.get(ref)
        except RayError as error:
            return str(error).partition("\n")[0]
        if not problem and not is_uri(self._folder) and not (Path(self._folder) / _mark(self.token, node)).exists():
            problem = "it wrote there, but this machine does not see it: another folder of the same name"
        return problem

    def sent_back(self, node: str, problem: str) -> None:
        """Take in what a trial found on its node.

        Raises:
            StorageError: if that node could keep checkpoints before, so that it is not the node that is to be avoided.
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
        self._tell(f"node {_host(node)} is not used: {self._folder}: {problem}")

    def wait(self, nodes: Mapping[str, Mapping[str, float]]) -> None:
        """Ask all nodes that can run anything, and wait for their answers.

        Raises:
            ResourceError: if one cannot keep checkpoints, with what to do.
        """
        tell, self._tell = self._tell, lambda text: None
        try:
            while True:
                self.look(nodes)
                if not self._asked:
                    break
                time.sleep(0.1)
        finally:
            self._tell = tell
        if self.bad:
            told = "; ".join(f"{_host(node)}: {problem}" for node, problem in self.bad.items())
            raise ResourceError(
                f"{self._folder}: {len(self.bad)} of the cluster's {len(nodes)} nodes cannot keep checkpoints there ({told}). "
                "Give --results a folder that all nodes share (NFS, for example), or s3://... or gs://..."
            )


def _host(node: str) -> str:
    found = [entry for entry in ray.nodes() if entry["NodeID"] == node] if ray.is_initialized() else []
    return f"{found[0]['NodeManagerHostname']} ({found[0]['NodeManagerAddress']})" if found else node[:8]


def _ask_node(folder: str, token: str, node: str) -> Any:
    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task = ray.remote(probe).options(num_cpus=0, max_retries=0, scheduling_strategy=where, name=f"digit_search probe of {node[:8]}")
    return task.remote(folder, token, node)


class AvoidNodes(PlacementGroupFactory):
    """Where a trial may run: on any node but those that `reach` found bad, whenever Tune asks for the place."""

    def __init__(self, resources: Mapping[str, float], bad: Mapping[str, str]) -> None:
        super().__init__([dict(resources)])
        self._bad = bad

    def to_placement_group(self) -> PlacementGroup:
        # Equal all the same to the place before a node was found bad, so that Tune goes on using its workers.
        selector = [{NODE_ID_LABEL: f"!in({','.join(sorted(self._bad))})"}] if self._bad else None
        return placement_group(*self._bound.args, **self._bound.kwargs, bundle_label_selector=selector)
