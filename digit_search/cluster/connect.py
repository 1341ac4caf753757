"""A cluster that this program did not start: which one to join, whether that is possible, and how its workers get our code."""

import json
import os
import platform
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from digit_search.errors import ResourceError
from digit_search.private_api import JOB_CONFIG_VARIABLE, cluster_metadata, load_token, local_cluster_address

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 15.0
PACKAGE = Path(__file__).parents[1]
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")
_TOKEN_HELP = (
    "Give it the cluster's token: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN=..., RAY_AUTH_TOKEN_PATH=FILE or ~/.ray/auth_token; "
    "`ray get-auth-token` on the head prints it"
)


def address_to_join(address: str) -> str:
    """The address of the cluster that a search joins, "" if it starts its own Ray.

    A program started by `ray job submit` joins its own cluster, which would have no free cores for a second Ray. Otherwise RAY_ADDRESS is
    ignored, since it may have been set for another program.
    """
    if not address and JOB_CONFIG_VARIABLE in os.environ:
        return os.environ.get("RAY_ADDRESS", "")
    return address


def check_cluster(address: str) -> str:
    """Return HOST:PORT of a cluster that answers, accepts our token and has our versions of Ray and Python.

    Raises ResourceError within about half a minute, with what to do. Ray (2.60) itself would try for 20 to 40 s, or end this process from
    C++ code if it has no token.
    """
    host_and_port = _host_and_port(address)
    _check_listens(host_and_port)
    # The address may come from another person's configuration. So it gets a token that was given for this run, not the one in ~/.ray.
    has_given_token = address == "auto" or bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    try:
        has_token = load_token(turn_on=has_given_token)
    except AuthenticationError as error:
        reason = str(error).partition(". ")[0]
        raise ResourceError(
            f"the cluster at {host_and_port}: expected Ray's authentication token, found none ({reason}). {_TOKEN_HELP}"
        ) from error
    _check_versions(host_and_port, _ask_for_metadata(host_and_port, has_token=has_token))
    return host_and_port


def _host_and_port(address: str) -> str:
    if address == "auto":
        try:
            address = local_cluster_address()
        except ConnectionError as error:
            raise ResourceError("--address auto: no Ray runs on this machine; start one with `ray start`, or give HOST:PORT") from error
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match["port"]) < 1 << 16:
        raise ResourceError(f"--address {address}: expected auto or HOST:PORT of the cluster's head, e.g. 10.0.0.1:6379")
    return address


def _check_listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ResourceError(
            f"the cluster at {address} cannot be reached: {error.strerror or error}. "
            "Check that it is up, that this is the port of its head (6379 unless `ray start --head --port` chose another), "
            "and that no firewall blocks it"
        ) from error


def _ask_for_metadata(address: str, *, has_token: bool) -> dict[str, str]:
    """Ask the cluster's head about itself. The call may take 40 s and ignores signals, so a thread makes it."""
    answers: list[dict[str, str] | Exception] = []

    def ask() -> None:
        try:
            answers.append(cluster_metadata(address, ANSWER_SECONDS))
        except (RayError, OSError, RuntimeError, ValueError) as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    with _silent_stderr():
        thread.start()
        thread.join(ANSWER_SECONDS)
    answer = answers[0] if answers else TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")
    if isinstance(answer, AuthenticationError):
        found = "another" if has_token else "none"
        raise ResourceError(f"the cluster at {address}: expected its authentication token, found {found}. {_TOKEN_HELP}") from answer
    if isinstance(answer, Exception):
        raise ResourceError(f"the cluster at {address} does not answer as Ray's head does: {answer}") from answer
    return answer


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what Ray's C++ code writes to stderr besides raising an error. Its log level can only be set before Ray is imported."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def _check_versions(address: str, theirs: dict[str, str]) -> None:
    versions = {
        "Ray": (theirs.get("ray_version", "unknown"), ray.__version__),
        "Python": (theirs.get("python_version", "unknown"), platform.python_version()),
    }
    differences = [f"{name} {found} instead of {ours}" for name, (found, ours) in versions.items() if found != ours]
    if differences:
        raise ResourceError(
            f"the cluster at {address} has {' and '.join(differences)}; Ray needs the same versions everywhere. "
            "Install requirements.txt on the cluster with this Python, or run with the cluster's versions"
        )


def code_for_workers() -> dict[str, Any]:
    """The runtime environment that brings our package to the cluster's nodes: half a megabyte, without the embedded digits.

    Empty for a job that was submitted with a working folder, which has our code already.
    """
    runtime_env = json.loads(os.environ.get(JOB_CONFIG_VARIABLE, "{}")).get("runtime_env") or {}
    if runtime_env.get("working_dir") or runtime_env.get("py_modules"):
        return {}
    return {"py_modules": [str(PACKAGE)], "excludes": ["/data/sample/*.gz", "/data/sample/*.csv", "__pycache__"]}
