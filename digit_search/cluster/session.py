"""Ray around a search: start or join it, and stop it at the end."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import ray
from ray.exceptions import AuthenticationError, RayError
from ray.job_config import JobConfig

from digit_search.cluster.connect import check_cluster, code_for_workers
from digit_search.config.settings import RaySettings
from digit_search.errors import RayLostError, ResourceError
from digit_search.machine_limits import usable_cores
from digit_search.private_api import ray_errors_in_log, ray_on_loopback
from digit_search.run.environment import check_dashboard_host

MIB = 1 << 20

logger = logging.getLogger(__name__)


def node_resources() -> list[dict[str, float]]:
    """What each node that is alive has, e.g. [{"CPU": 8.0, "GPU": 1.0}]."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def send_chatter_to(log: Path) -> None:
    """Write the log messages of Ray and Optuna, and Python's warnings, to a file and nowhere else.

    The handler belongs to the root logger, because ray.init (2.60) removes the handlers of Ray's logger.
    """
    handler = logging.FileHandler(log, delay=True, encoding="utf-8")
    logging.basicConfig(handlers=[handler], format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.captureWarnings(True)
    # An exception in a library's thread goes to the log as well. A log that cannot be written, on a full disk, must not print tracebacks.
    threading.excepthook = lambda error: logger.error("exception in a thread", exc_info=error.exc_value)
    logging.raiseExceptions = False
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    ray_logger = logging.getLogger("ray")
    ray_logger.handlers.clear()
    ray_logger.propagate = True
    # This logger warns about every trial without a result.json. We write none, because our records replace it.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)


@contextmanager
def running_ray(settings: RaySettings, job: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start or join Ray; yield the dashboard's address, or "" if there is none. Ray's dashboard shows the metadata in `job`.

    At the end, a Ray that was started is stopped. A cluster that was joined keeps running, and our workers and actors on it end.

    Raises:
        ResourceError: if Ray does not start in time, the cluster cannot be joined, or the dashboard would be open to a network.
        RayLostError: if Ray's processes are too slow to start, or if the body of the `with` raises a RayError.
    """
    check_dashboard_host(settings)
    if settings.address:
        settings = settings.model_copy(update={"address": check_cluster(settings.address)})
    # Ray would send usage statistics over the internet.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # ray.init and ray.shutdown (2.60) replace this handler.
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    with ray_errors_in_log():
        try:
            dashboard_url = _start_ray(settings, job or {})
            signal.signal(signal.SIGTERM, sigterm_handler)
            yield f"http://{dashboard_url}" if dashboard_url else ""
        except RayError as error:
            raise RayLostError(str(error).partition("\n")[0]) from error
        finally:
            try:
                ray.shutdown()
            finally:
                signal.signal(signal.SIGTERM, sigterm_handler)


def _start_ray(settings: RaySettings, job: Mapping[str, str]) -> str:
    """Start or join Ray; return HOST:PORT of its dashboard, or "" if there is none."""
    loopback = nullcontext() if settings.address else ray_on_loopback()
    try:
        with _time_limit(settings.start_timeout_seconds), loopback:
            return ray.init(**_init_options(settings), job_config=JobConfig(metadata=dict(job))).dashboard_url or ""
    except AuthenticationError as error:
        # RAY_AUTH_TOKEN_PATH names a file that is missing or empty. Another try would fail too, so this is not a lost Ray.
        reason = str(error).partition(". ")[0]
        raise ResourceError(f"Ray: {reason}. Fix or unset that variable; without it Ray makes its own token") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {settings.address}" if settings.address else "Ray on this machine"
        raise ResourceError(f"{where} cannot be reached or started: {error}") from error
    except SystemExit as terminated:
        # While it starts, ray.init (2.60) handles SIGTERM by raising SystemExit.
        raise KeyboardInterrupt from terminated
    except Exception as error:
        # Ray (2.60) raises a plain Exception if its processes start too slowly, as on a busy machine. Another start may be quicker.
        if type(error) is not Exception:
            raise
        raise RayLostError(f"it did not start: {error}") from error


def _init_options(settings: RaySettings) -> dict[str, Any]:
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if settings.address:
        return options | {"address": settings.address, "runtime_env": code_for_workers()}
    # Without address="local", Ray would join the cluster at RAY_ADDRESS, or one that happens to run on this machine.
    return options | {
        "address": "local",
        # Ray (2.60) ignores the process's CPU affinity and the limits of nested control groups.
        "num_cpus": max(1, int(usable_cores())),
        "object_store_memory": settings.object_store_mib * MIB,
        "include_dashboard": settings.dashboard,
        "dashboard_host": settings.dashboard_host,
    }


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ResourceError after so many seconds. An alarm signal does that, so there is no limit on Windows.

    A thread could wait for ray.init instead, but a ray.init that hangs holds the lock that ray.shutdown needs.
    """
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise ResourceError(
            f"Ray did not start within {seconds:g} s; its logs are in /tmp/ray/session_latest/logs, and doctor may name the cause"
        )

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
