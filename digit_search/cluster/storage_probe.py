"""Which nodes of a joined cluster can keep a run's checkpoints. A folder that each machine has for itself fails at the first checkpoint."""

import functools
import importlib.util
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group

from digit_search.cluster.nodes import run_on_node
from digit_search.errors import ResourceError, StorageError
from digit_search.files.atomic_io import write_atomically
from digit_search.files.object_store import Remote, is_uri

ANSWER_SECONDS = 120.0
"""The first worker of a node may have to fetch our code and import Ray from a slow disk."""
NODE_ID_LABEL = "ray.io/node-id"
UNREACHED = "unreached"
"""Key in a trial's report: why the node of its `node_id` cannot keep the trial's checkpoints."""
NEEDED = ("torch", "torchvision", "pyarrow", "optuna", "pydantic")


def probe(folder: str, token: str, node: str) -> str:
    """On a node: read the driver's mark in the run's folder and write one beside it. Returns what is wrong, "" for nothing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed there (pip install -r requirements.txt)"
    mark = _mark(token, node)
    try:
        if is_uri(folder):
            Remote(folder).put(mark, b"reached")
            Remote(folder).delete(mark)
        else:
            content = (Path(folder) / _mark(token)).read_text(encoding="utf-8")
            (Path(folder) / mark).write_text(content, encoding="utf-8")
    except StorageError as error:
        return str(error)
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


def _mark(token: str, node: str = "") -> str:
    return f".reach-{token[:8]}{'-' if node else ''}{node}"


class StorageProbe:
    """Asks each node once, and remembers which of them can keep checkpoints."""

    def __init__(self, folder: str, say: Callable[[str], None]) -> None:
        """`folder` is where the trials' checkpoints go, a path or a URI."""
        self._folder = folder
        self._say = say
        self.token = uuid.uuid4().hex
        """What the mark in the folder contains."""
        self.good: set[str] = set()
        """Ids of the nodes that can keep checkpoints."""
        self.bad: dict[str, str] = {}
        """By node id, why a node cannot."""
        self._asked: dict[str, tuple[Any, float]] = {}
        """By the id of a node that has not answered: its probe, and when that started."""

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
        for node in self._take_answers(nodes):
            self._say_bad(node)

    def _take_answers(self, nodes: Iterable[str]) -> list[str]:
        """As `look`, but return the nodes that turned out to be bad."""
        for node in nodes:
            if node not in (self.good | self.bad.keys() | self._asked.keys()):
                task = run_on_node(node, probe, self._folder, self.token, node, name=f"digit_search probe of {node[:8]}")
                self._asked[node] = task, time.monotonic()
        if not self._asked:
            return []
        probes = [ref for ref, _ in self._asked.values()]
        answered, _ = ray.wait(probes, num_returns=len(probes), timeout=0)
        new_bad = []
        for node, (ref, asked_at) in list(self._asked.items()):
            if ref in answered:
                problem = self._answer(ref, node)
            elif time.monotonic() - asked_at > ANSWER_SECONDS:
                problem = f"no answer for {ANSWER_SECONDS:g} s"
            else:
                continue
            del self._asked[node]
            if not problem and node not in self.bad:
                self.good.add(node)
            elif node not in self.bad:
                self.bad[node] = problem
                new_bad.append(node)
        return new_bad

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
        if node not in self.bad:
            self.bad[node] = problem
            self._say_bad(node)

    def _say_bad(self, node: str) -> None:
        self._say(f"node {_host(node)} is not used: {self._folder}: {self.bad[node]}")

    def wait(self, nodes: Mapping[str, Mapping[str, float]]) -> None:
        """Ask all nodes, and wait for their answers. Raises ResourceError, with what to do, if one cannot keep checkpoints."""
        self._take_answers(nodes)
        while self._asked:
            time.sleep(0.1)
            self._take_answers(nodes)
        if self.bad:
            problems = "; ".join(f"{_host(node)}: {problem}" for node, problem in self.bad.items())
            raise ResourceError(
                f"{self._folder}: {len(self.bad)} of the cluster's {len(nodes)} nodes cannot keep checkpoints there ({problems}). "
                "Give --results a folder that all nodes share (NFS, for example), or s3://... or gs://..."
            )


def _host(node: str) -> str:
    entries = [entry for entry in ray.nodes() if entry["NodeID"] == node] if ray.is_initialized() else []
    return f"{entries[0]['NodeManagerHostname']} ({entries[0]['NodeManagerAddress']})" if entries else node[:8]


class AvoidNodes(PlacementGroupFactory):
    """The resources of a trial, on any node but the bad ones. `bad` is read each time Tune asks for a placement."""

    def __init__(self, resources: Mapping[str, float], bad: Mapping[str, str]) -> None:
        super().__init__([dict(resources)])
        self._bad = bad

    def to_placement_group(self) -> PlacementGroup:
        # It stays equal to the placement before a node was found bad, so that Tune keeps using its workers.
        selector = [{NODE_ID_LABEL: f"!in({','.join(sorted(self._bad))})"}] if self._bad else None
        return placement_group(self.bundles, strategy=self.strategy, bundle_label_selector=selector)
