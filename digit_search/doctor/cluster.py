"""Ray: whether it starts on this machine, or whether the cluster at `--address` can be joined, and what its nodes report."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from digit_search.cluster.connect import address_to_join
from digit_search.cluster.nodes import NodeView, view_nodes
from digit_search.cluster.session import running_ray, send_chatter_to
from digit_search.config.settings import RaySettings
from digit_search.doctor.finding import Finding, ok, problem, warning
from digit_search.doctor.libraries import INSTALL, installed_version, without_build
from digit_search.errors import DigitSearchError

SKEW_SECONDS = 1.0
"""With a larger difference, the logs of two nodes cannot be compared by time."""
BAD_SKEW_SECONDS = 300.0
"""With a larger difference, object stores refuse signed requests."""


def check_ray(settings: RaySettings) -> Iterator[Finding]:
    """Start or join Ray for real."""
    send_chatter_to(Path(os.devnull))
    settings = settings.model_copy(update={"address": address_to_join(settings.address)})
    yield from judge_ray(settings.address, lambda: running_ray(settings), view_nodes)


def judge_ray(
    address: str, running_ray: Callable[[], AbstractContextManager[str]], view_nodes: Callable[[], Sequence[NodeView]]
) -> Iterator[Finding]:
    """Start or join Ray and look at its nodes. `address` is "" for a Ray of this machine."""
    try:
        with running_ray():
            nodes = view_nodes()
    except DigitSearchError as error:
        # Messages about joining say what to do about the address, the token or the versions.
        remedy = "" if address else "fix that; the cause may also be an unusual network setup, too little shared memory or a full disk"
        yield problem("Ray", " ".join(str(error).split()), remedy)
        return
    where = f"joined the cluster at {address}" if address else "starts and stops on this machine"
    yield ok("Ray", f"{installed_version('ray')}, {where}; {len(nodes)} node{'s' if len(nodes) > 1 else ''}")
    for node in nodes:
        yield judge_node(node)
        if len(nodes) > 1 and not node.error:
            yield judge_clock(node)


def judge_node(node: NodeView) -> Finding:
    """One node, compared with what is installed on this machine."""
    if node.error:
        remedy = "look at its raylet's logs (/tmp/ray/session_latest/logs there), or remove it from the cluster"
        return problem("node", f"{node.name}: {node.error}", remedy)
    resources = f"CPU {node.resources.get('CPU', 0):g}, GPU {node.resources.get('GPU', 0):g}"
    found = f"{node.name}: {resources}; " + ", ".join(f"{library} {version}" for library, version in node.versions.items())
    missing = [library for library in ("torch", "torchvision", "pyarrow", "optuna") if library not in node.versions]
    if missing:
        return problem("node", f"{found}; without {', '.join(missing)}", f"{INSTALL} there")
    if differing := list(_differing_versions(node)):
        remedy = f"{INSTALL} there, so that trials and retraining compute the same"
        return warning("node", f"{found}; this machine: {', '.join(differing)}", remedy)
    if node.resources.get("GPU", 0) >= 1 and not node.sees_cuda and platform.system() != "Darwin":
        remedy = "install a torch there that fits the card and its driver"
        return warning("node", f"{found}; Ray counts a GPU that torch cannot use", remedy)
    return ok("node", found)


def _differing_versions(node: NodeView) -> Iterator[str]:
    """This machine's versions of the libraries of which the node has another version."""
    for library, version in node.versions.items():
        ours = platform.python_version() if library == "python" else installed_version(library)
        if ours and without_build(version) != without_build(ours):
            yield f"{library} {ours}"


def judge_clock(node: NodeView) -> Finding:
    """Whether a node's clock agrees with that of this machine."""
    found = f"{node.name}: {node.clock_offset_seconds:+.3f} s from ours, give or take {node.clock_error_seconds:.3f} s"
    least_skew_seconds = abs(node.clock_offset_seconds) - node.clock_error_seconds
    remedy = "synchronize the clocks (chrony or systemd-timesyncd on all nodes)"
    if least_skew_seconds > BAD_SKEW_SECONDS:
        return problem("clock", found, f"{remedy}: object stores refuse requests with such a wrong time")
    if least_skew_seconds > SKEW_SECONDS:
        return warning("clock", found, f"{remedy}: the logs of the nodes cannot be compared by time")
    return ok("clock", found)
