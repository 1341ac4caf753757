"""A cluster that others started: which one is meant, whether it can be joined, and how its workers come to our code."""

import json
import logging
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
from ray._private import services
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, maybe_enable_token_auth_if_token_available
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RayError

from digit_search.errors import ResourceError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 15.0
PACKAGE = Path(__file__).parents[1]
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")
_TOKEN_HELP = (
    "Give it the cluster's token: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN=..., RAY_AUTH_TOKEN_PATH=FILE or ~/.ray/auth_token; "
    "`ray get-auth-token` on the head prints it"
)


def address_to_join(address: str) -> str:
    """The cluster that a search shall join, "" for a Ray of its own.

    A program that `ray job submit` started belongs to its cluster, and would find no room for a second Ray there. RAY_ADDRESS alone means
    nothing: it may have been set for something else.
    """
    if not address and RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ:
        return os.environ.get("RAY_ADDRESS", "")
    return address


def check_cluster(address: str) -> str:
    """Return HOST:PORT of a cluster that answers, knows our token and has our versions.

    Ray (2.60) itself would try for 20 to 40 s, or end this process from within C++ where it has no token.

    Raises:
        ResourceError: with what to do, in half a minute at most.
    """
    found = _found(address)
    _check_listens(found)
    # Only a token that was given for this purpose goes to an address from a configuration, not whichever lies in the home folder.
    is_given = address == "auto" or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        if is_given:
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        is_missing = is_token_auth_enabled() and not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError as error:
        # RAY_AUTH_TOKEN_PATH names a file that is not there, or empty.
        raise ResourceError(f"the cluster at {found}: {str(error).partition('. ')[0]}. {_TOKEN_HELP}") from error
    if is_missing:
        raise ResourceError(f"the cluster at {found}: expected Ray's authentication token, found none. {_TOKEN_HELP}")
    _check_versions(found, _ask_versions(found))
    return found


def _found(address: str) -> str:
    """HOST:PORT of what was asked for."""
    if address == "auto":
        try:
            address = services.canonicalize_bootstrap_address_or_die("auto")
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
            "Is it up, is that the port of its head (6379 where `ray start --head` was told no other), and does no firewall lie between?"
        ) from error


def _ask_versions(address: str) -> dict[str, str]:
    """Ray's and Python's versions there. The client may not return for 40 s, and no signal reaches it, so a thread waits for it."""
    answers: list[bytes | Exception] = []

    def ask() -> None:
        try:
            answers.append(GcsClient(address=address).internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=ANSWER_SECONDS) or b"{}")
        except (RayError, OSError, RuntimeError, ValueError) as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    with _quiet():
        thread.start()
        thread.join(ANSWER_SECONDS)
    answer = answers[0] if answers else TimeoutError(f"no answer of a Ray within {ANSWER_SECONDS:g} s")
    if isinstance(answer, AuthenticationError):
        found = "another" if is_token_auth_enabled() else "none"
        raise ResourceError(f"the cluster at {address}: expected its authentication token, found {found}. {_TOKEN_HELP}") from answer
    if isinstance(answer, Exception):
        raise ResourceError(f"the cluster at {address} does not answer as Ray's head does: {answer}") from answer
    return json.loads(answer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal what Ray's C++ prints beside the error that it raises: its level can be set before Ray's import alone."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_versions(address: str, theirs: dict[str, str]) -> None:
    ours = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    other = [
        f"{name.partition('_')[0].capitalize()} {theirs.get(name, 'unknown')} instead of {version}"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
    if other:
        raise ResourceError(
            f"the cluster at {address} has {' and '.join(other)}; Ray wants the same everywhere. "
            "Install requirements.txt on the cluster with this Python, or run where the cluster's versions are"
        )


def code_for_workers() -> dict[str, Any]:
    """The runtime environment with which the cluster's nodes need nothing of ours: half a megabyte, without the embedded digits.

    A job that brought its working folder has given them our code already.
    """
    brought = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}")).get("runtime_env") or {}
    if brought.get("working_dir") or brought.get("py_modules"):
        return {}
    # Ray (2.60) says where it uploads what on the terminal, whatever its loggers were told before.
    logging.getLogger("ray._private.runtime_env").propagate = True
    return {"py_modules": [str(PACKAGE)], "excludes": ["/data/sample/*.gz", "/data/sample/*.csv", "__pycache__"]}
