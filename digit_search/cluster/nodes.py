"""What the nodes of the Ray that is up say of themselves."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_SECONDS = 60.0
"""A node's first task starts a process and imports torch."""
CLOCK_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node."""

    name: str
    resources: Mapping[str, float]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of python and the libraries that could be imported there."""
    sees_cuda: bool = False
    clock_offset_seconds: float = 0.0
    """Its clock minus ours."""
    clock_error_seconds: float = 0.0
    """By how much that may be wrong: half of the quickest round trip."""
    error: str = ""
    """Why it did not answer."""


def view_nodes() -> list[NodeView]:
    """Ask every node that is alive, all at a time; the head first."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    nodes.sort(key=lambda node: (HEAD not in node["Resources"], node["NodeManagerAddress"], node["NodeID"]))
    asked = [(node, _on_node(_tell, node["NodeID"])) for node in nodes]
    return [_view(node, reference) for node, reference in asked]


HEAD = "node:__internal_head__"


def _view(node: Mapping[str, Any], reference: ray.ObjectRef) -> NodeView:
    name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]}{', head' if HEAD in node['Resources'] else ''})"
    try:
        versions, sees_cuda = ray.get(reference, timeout=ANSWER_SECONDS)
        offset, error = clock_offset(lambda: ray.get(_on_node(_clock, node["NodeID"]), timeout=ANSWER_SECONDS))
    except GetTimeoutError:
        return NodeView(name, node["Resources"], error=f"no answer within {ANSWER_SECONDS:g} s")
    except RayError as error:
        return NodeView(name, node["Resources"], error=str(error).strip().splitlines()[-1][:200])
    return NodeView(name, node["Resources"], versions, sees_cuda, offset, error)


def clock_offset(ask: Callable[[], float], now: Callable[[], float] = time.time, rounds: int = CLOCK_ROUNDS) -> tuple[float, float]:
    """Another clock minus ours and the error of that, in seconds: its time is taken to be that of the middle of the quickest round trip."""
    trips = []
    for _ in range(rounds):
        asked_at = now()
        told = ask()
        answered_at = now()
        trips.append((answered_at - asked_at, told - statistics.mean((asked_at, answered_at))))
    quickest, offset = min(trips)
    return offset, quickest / 2


def _on_node(task: Callable[[], Callable[[], object]], node_id: str) -> ray.ObjectRef:
    """Start a task on one node; without a core of its own, so that a busy node answers too."""
    strategy = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(task()).remote()


# The nodes of a cluster need not have our code. A function made in a function travels as a whole.


def _tell() -> Callable[[], tuple[dict[str, str], bool]]:
    def tell() -> tuple[dict[str, str], bool]:
        import importlib
        import platform

        versions = {"python": platform.python_version()}
        for name in ("ray", "torch", "torchvision", "pyarrow", "optuna"):
            try:
                versions[name] = importlib.import_module(name).__version__
            except Exception:  # noqa: BLE001
                continue
        sees_cuda = "torch" in versions and importlib.import_module("torch").cuda.is_available()
        return versions, sees_cuda

    return tell


def _clock() -> Callable[[], float]:
    def clock() -> float:
        import time

        return time.time()

    return clock
