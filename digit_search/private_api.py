"""Every private name of Ray and Optuna that this package uses: what it is, why there is no public way, and the version it was checked with.

No other module may use one. tests/test_private_api.py checks each against the installed version and names it when that has changed.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

from ray import tune
from ray._private import ray_constants, services
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import (
    ensure_token_if_auth_enabled,
    maybe_enable_token_auth_if_token_available,
)
from ray._private.runtime_env import constants
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, and missing from its stub file
from ray.tune.experiment import Trial
from ray.tune.trainable import wrap_function

JOB_CONFIG_VARIABLE = constants.RAY_JOB_CONFIG_JSON_ENV_VAR
"""Environment variable that `ray job submit` sets to the job's configuration, as JSON. Ray 2.60.0 has no public way to find out, before
ray.init, whether a program is a submitted job."""


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def ray_on_loopback() -> AbstractContextManager[None]:
    """Within this context, ray.init starts a Ray that listens on loopback only; its dashboard listens on `dashboard_host`.

    Ray 2.60.0: `ray._private.ray_constants.ENABLE_RAY_CLUSTER`, which is false on macOS and Windows. Where it is true, Ray listens on all
    interfaces, and replaces a loopback address that it is given by the machine's other address. The public variable
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER sets it too, but is read only once, when Ray is imported, before we know whether to join a cluster.
    """
    return _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False)


def ray_errors_in_log() -> AbstractContextManager[None]:
    """Within this context, what Ray prints about a dead node or raylet goes to the logger "ray" instead of stdout.

    Ray 2.60.0: `ray._private.worker.print_to_stdstream`, called for every such message. Neither `log_to_driver=False` nor a log level
    prevents that, and redirecting stdout would redirect our own output too.
    """

    def log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        logging.getLogger("ray").warning("%s", "\n".join(data["lines"]))

    return _replaced(ray_worker, "print_to_stdstream", log)


def local_cluster_address() -> str:
    """HOST:PORT of the cluster to which this machine belongs: RAY_ADDRESS, or the newest `ray start` here.

    Raises ConnectionError if there is none. Ray 2.60.0: `ray._private.services.canonicalize_bootstrap_address_or_die`. The public
    ray.init(address="auto") joins the cluster at once, so we could not check its versions first.
    """
    return services.canonicalize_bootstrap_address_or_die("auto")


def load_token(*, turn_on: bool) -> bool:
    """Load Ray's authentication token; return whether this process authenticates with it.

    `turn_on`: use a token that exists even if RAY_AUTH_MODE is not set. Raises AuthenticationError if authentication is on and the token
    is missing or cannot be read.

    Ray 2.60.0: `maybe_enable_token_auth_if_token_available` and `ensure_token_if_auth_enabled` of
    `ray._private.authentication.authentication_token_setup`. ray.init calls them, but `cluster_metadata` comes before it, and its C++ code
    ends the whole process if it needs a token and has none.
    """
    if turn_on:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def cluster_metadata(address: str, timeout_seconds: float) -> dict[str, str]:
    """What a cluster's head says about itself, e.g. "ray_version" and "python_version".

    Ray 2.60.0: `ray._raylet.GcsClient.internal_kv_get`. The public ray.init compares versions too, but tries for 20 to 40 s before it fails
    if there is no answer. So does this call, whose timeout does not include connecting, but a thread can make it.

    Raises:
        AuthenticationError: if the cluster does not accept our token.
        RayError, OSError, RuntimeError, ValueError: if it does not answer.
    """
    answer = GcsClient(address=address).internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=timeout_seconds)
    return json.loads(answer or b"{}")


def search_jobs() -> dict[str, dict[str, str]]:
    """The metadata of every job that is alive on the cluster, by job id in hexadecimal.

    Raises RayError if the head does not answer within 5 s. Ray 2.60.0: `ray._private.worker.global_worker.gcs_client.get_all_job_info`. The
    public ray.util.state.list_jobs asks the dashboard's web server, which a cluster need not have, and which is too slow to ask every two
    seconds.
    """
    client: GcsClient = ray_worker.global_worker.gcs_client  # type: ignore[attr-defined]  # set by ray.init
    jobs = client.get_all_job_info(skip_submission_job_info_field=True, skip_is_running_tasks_field=True, timeout=5.0)
    return {job.hex(): dict(info.config.metadata) for job, info in jobs.items() if not info.is_dead}


def worker_of(trial: Trial) -> Any:
    """The actor of a trial, None if it has none. An actor that has ended a trial may already have its next one, which does not run yet.

    Ray 2.60.0: `Trial.temporary_state.ray_actor`. Tune's callbacks have no public way to find a worker that hangs.
    """
    return trial.temporary_state.ray_actor


def worker_class(train: Callable[[dict[str, Any]], None]) -> type[tune.Trainable]:
    """The class that Tune makes of a function. Only with a subclass of it can we name the workers on Ray's dashboard.

    Ray 2.60.0: `ray.tune.trainable.wrap_function`, which is undocumented.
    """
    made: type[tune.Trainable] = wrap_function(train)
    return made
