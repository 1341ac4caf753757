"""Ray: whether one of our own starts here, or the cluster at `--address` can be joined, and what its nodes say."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from digit_search.doctor.finding import Finding, ok, problem, warning
from digit_search.doctor.libraries import INSTALL, installed_version
from digit_search.errors import DigitSearchError

SKEW_SECONDS = 1.0
"""From here on the nodes' logs cannot be laid beside each other."""
BAD_SKEW_SECONDS = 300.0
"""From here on signed requests are refused, as those to an object storage are."""


def check_ray(settings: Any) -> Iterator[Finding]:
    """Start or join Ray for real, with `config.RaySettings`."""
    from digit_search.cluster.connect import address_to_join
    from digit_search.cluster.nodes import view_nodes
    from digit_search.cluster.session import running_ray, send_chatter_to

    send_chatter_to(Path(os.devnull))
    settings = settings.model_copy(update={"address": address_to_join(settings.address)})
    yield from judge_ray(settings.address, lambda: running_ray(settings), view_nodes)


def judge_ray(address: str, running: Callable[[], AbstractContextManager], view_nodes: Callable[[], Sequence[Any]]) -> Iterator[Finding]:
    """What a start of Ray, or joining it, comes to."""
    try:
        with running():
            nodes = view_nodes()
    except DigitSearchError as error:
        yield judge_failure(address, str(error))
        return
    where = f"joined the cluster at {address}" if address else "starts on this machine and stops again"
    yield ok("Ray", f"{installed_version('ray')}, {where}; {len(nodes)} node{'s' if len(nodes) > 1 else ''}")
    for node in nodes:
        yield judge_node(node)
        if len(nodes) > 1 and not node.error:
            yield judge_clock(node)


def judge_failure(address: str, error: str) -> Finding:
    """Why Ray could not be reached, in words, with what to do."""
    text = " ".join(error.split())
    if address:
        # Joining says of itself what to do: about the address, the token, the versions.
        return problem("Ray", text, "")
    return problem("Ray", text, "mend that; an odd network, little shared memory, a full disk and too few open files are told here too")


def judge_node(node: Any) -> Finding:
    """One node against what is installed here."""
    if node.error:
        return problem(
            "node",
            f"{node.name}: {node.error}",
            "look at its raylet's logs (/tmp/ray/session_latest/logs there), or take it out of the cluster",
        )
    have = f"CPU {node.resources.get('CPU', 0):g}, GPU {node.resources.get('GPU', 0):g}"
    found = f"{node.name}: {have}; " + ", ".join(f"{library} {version}" for library, version in node.versions.items())
    missing = [library for library in ("torch", "torchvision", "pyarrow", "optuna") if library not in node.versions]
    if missing:
        return problem("node", f"{found}; without {', '.join(missing)}", f"{INSTALL} there")
    differing = [
        f"{library} {ours}"
        for library, version in node.versions.items()
        if (ours := platform.python_version() if library == "python" else installed_version(library)) and not _same(version, ours)
    ]
    if differing:
        return warning("node", f"{found}; here: {', '.join(differing)}", f"{INSTALL} there, so that trials and retraining compute alike")
    if node.resources.get("GPU", 0) >= 1 and not node.sees_cuda and platform.system() != "Darwin":
        return warning(
            "node", f"{found}; Ray counts a GPU that torch cannot use", "install a torch there that fits the card and its driver"
        )
    return ok("node", found)


def _same(version: str, other: str) -> bool:
    return version.partition("+")[0] == other.partition("+")[0]


def judge_clock(node: Any) -> Finding:
    """Whether a node's clock agrees with ours."""
    offset = node.clock_offset_seconds
    found = f"{node.name}: {offset:+.3f} s from ours, give or take {node.clock_error_seconds:.3f} s"
    surely = abs(offset) - node.clock_error_seconds
    if surely > BAD_SKEW_SECONDS:
        return problem("node", found, "set the clocks (chrony or systemd-timesyncd on all nodes): object storages refuse such requests")
    if surely > SKEW_SECONDS:
        return warning("clock", found, "set the clocks (chrony or systemd-timesyncd on all nodes): times in logs will not fit together")
    return ok("clock", found)
