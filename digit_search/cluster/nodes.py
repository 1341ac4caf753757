"""What each node of the running Ray reports: its resources, library versions and clock."""

import importlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_SECONDS = 60.0
"""A node's first task starts a process and imports torch."""
CLOCK_ROUNDS = 5
HEAD_RESOURCE = "node:__internal_head__"
"""A resource that only the head has (Ray 2.60)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    resources: Mapping[str, float]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python and of the libraries that can be imported there."""
    sees_cuda: bool = False
    clock_offset_seconds: float = 0.0
    """Its clock minus ours."""
    clock_error_seconds: float = 0.0
    """Largest possible error of that offset: half of the quickest round trip."""
    error: str = ""
    """Why it did not answer."""


def view_nodes() -> list[NodeView]:
    """Ask every node that is alive, all at the same time; the head comes first."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    nodes.sort(key=lambda node: (HEAD_RESOURCE not in node["Resources"], node["NodeManagerAddress"], node["NodeID"]))
    requests = [(node, run_on_node(node["NodeID"], _installed)) for node in nodes]
    return [_view(node, request) for node, request in requests]


def _view(node: Mapping[str, Any], request: "ray.ObjectRef[tuple[dict[str, str], bool]]") -> NodeView:
    name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]}{', head' if HEAD_RESOURCE in node['Resources'] else ''})"
    try:
        versions, sees_cuda = ray.get(request, timeout=ANSWER_SECONDS)
        offset, offset_error = clock_offset(lambda: ray.get(run_on_node(node["NodeID"], _clock), timeout=ANSWER_SECONDS))
    except GetTimeoutError:
        return NodeView(name, node["Resources"], error=f"no answer within {ANSWER_SECONDS:g} s")
    except RayError as error:
        return NodeView(name, node["Resources"], error=str(error).strip().splitlines()[-1][:200])
    return NodeView(name, node["Resources"], versions, sees_cuda, offset, offset_error)


def clock_offset(read_clock: Callable[[], float], now: Callable[[], float] = time.time, rounds: int = CLOCK_ROUNDS) -> tuple[float, float]:
    """Another clock minus ours, and the largest error of that, in seconds.

    They come from the quickest of several round trips, in whose middle the other clock is assumed to be read.
    """
    trips = []
    for _ in range(rounds):
        sent_at = now()
        read_at = read_clock()
        received_at = now()
        trips.append((received_at - sent_at, read_at - statistics.mean((sent_at, received_at))))
    quickest_seconds, offset = min(trips)
    return offset, quickest_seconds / 2


def run_on_node(node_id: str, function: Callable[..., T], *arguments: Any, name: str | None = None) -> "ray.ObjectRef[T]":
    """Start a task on one node. It reserves no core, so that a busy node answers too. `name` is for Ray's dashboard."""
    strategy = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    task = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy, name=name)
    return task.remote(*arguments)


def _installed() -> tuple[dict[str, str], bool]:
    """Versions of Python and of the libraries that can be imported here, and whether torch can use CUDA."""
    versions = {"python": platform.python_version()}
    for name in ("ray", "torch", "torchvision", "pyarrow", "optuna"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except Exception:  # noqa: BLE001
            # A broken library raises anything; it is reported as missing.
            continue
    sees_cuda = "torch" in versions and importlib.import_module("torch").cuda.is_available()
    return versions, sees_cuda


def _clock() -> float:
    return time.time()
