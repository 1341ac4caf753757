"""Ray's life around a search: started or joined, and stopped again."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.exceptions import AuthenticationError, RayError
from ray.job_config import JobConfig

from digit_search.cluster.connect import check_cluster, code_for_workers
from digit_search.cluster.guardian import all_started, guarded_ray
from digit_search.config.settings import RaySettings
from digit_search.errors import RayLostError, ResourceError
from digit_search.machine_limits import usable_cores
from digit_search.run.environment import check_dashboard_host

LOOPBACK = "127.0.0.1"
MIB = 1 << 20


def node_resources() -> list[dict[str, float]]:
    """What Ray counts on each node that is there now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def send_chatter_to(log: Path) -> None:
    """Let Ray's and Optuna's loggers, and Python's warnings, write to a file and nowhere else.

    The handler sits on the root logger: ray.init (2.60) clears those of its own.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(log, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    logging.captureWarnings(True)
    # A thread of a library that dies is nothing for the terminal, and a log that does not fit on a full disk is the least of its troubles.
    threading.excepthook = _log_thread_error
    logging.raiseExceptions = False
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    ray_logger = logging.getLogger("ray")
    ray_logger.handlers.clear()
    ray_logger.propagate = True
    # It would list every trial as one without result.json, a file that our own records make unnecessary.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)


def _log_thread_error(died: threading.ExceptHookArgs) -> None:
    logging.getLogger(__name__).error("a thread died", exc_info=(died.exc_type, died.exc_value, died.exc_traceback))


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise ResourceError after so many seconds; outside of the main thread, and without SIGALRM, wait as long as it takes."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_late(number: int, frame: FrameType | None) -> None:
        raise ResourceError(f"Ray did not start within {seconds:g} s; the reasons are in /tmp/ray/session_latest/logs (doctor may tell)")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _start_options(settings: RaySettings) -> dict[str, Any]:
    """What Ray is started with, or joined with where the settings have the address of a cluster that `check_cluster` found."""
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if settings.address:
        return options | {"address": settings.address, "runtime_env": code_for_workers()}
    # address="local" keeps RAY_ADDRESS, or a cluster that happens to run here, from being joined by accident.
    return options | {
        "address": "local",
        # Ray (2.60) sees neither an affinity nor the limits of a group within another, and makes no core of half a one.
        "num_cpus": max(1, int(usable_cores())),
        "object_store_memory": settings.object_store_mib * MIB,
        "include_dashboard": settings.dashboard,
        "dashboard_host": settings.dashboard_host,
        "_node_ip_address": LOOPBACK,
    }


@contextmanager
def _away_from_the_network(is_own: bool) -> Iterator[None]:
    """Let a Ray of our own listen on loopback alone; Ray's dashboard listens where `dashboard_host` says.

    Ray (2.60) takes a loopback address for `_node_ip_address` as a wish for the machine's other one, and then nearly all of its processes
    listen on every interface. It leaves it as it is where it believes that clusters are not for this system, as on macOS.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not is_own
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _told_to_the_log() -> Iterator[None]:
    """Let the log have what Ray (2.60) prints of a node's death among other people's output, whatever it was told of logs."""
    before = ray_worker.print_to_stdstream

    def log(data: Mapping[str, Any], **named: object) -> None:
        logging.getLogger("ray").warning("%s", "\n".join(data["lines"]))

    ray_worker.print_to_stdstream = log
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


@contextmanager
def running_ray(settings: RaySettings, job: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start or join Ray; yield the dashboard's address, or "" without one. Whatever was started is stopped at the end.

    A cluster that was joined goes on; what this process started there, its workers and actors, ends with the connection.

    `job` is what the dashboard tells of us.

    Raises:
        ResourceError: if Ray does not come up in time, the cluster cannot be joined, or the dashboard would be open to a network.
        RayLostError: for what Ray raised in here, and where its own processes were too slow to start.
    """
    check_dashboard_host(settings)
    if settings.address:
        settings = settings.model_copy(update={"address": check_cluster(settings.address)})
    # Usage statistics would leave the machine; metrics export needs Prometheus, not Ray's collector.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    guarded = nullcontext() if settings.address else guarded_ray(Path(ray.__file__).parent)
    with guarded as guardian, _told_to_the_log(), _sigterm_left_alone() as put_back:
        try:
            dashboard_url = _start_ray(settings, job or {})
            put_back()
            if guardian:
                all_started(guardian)
            yield f"http://{dashboard_url}" if dashboard_url else ""
        except RayError as error:
            raise RayLostError(str(error).partition("\n")[0]) from error
        finally:
            ray.shutdown()


@contextmanager
def _sigterm_left_alone() -> Iterator[Callable[[], object]]:
    """Put the handler of SIGTERM back that was there before, now and at the end: ray.init and ray.shutdown (2.60) set others."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    put_back = partial(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    try:
        yield put_back
    finally:
        put_back()


def _start_ray(settings: RaySettings, job: Mapping[str, str]) -> str:
    """Start or join Ray; return where its dashboard is, "" for none."""
    try:
        with _bounded(settings.start_timeout_seconds), _away_from_the_network(not settings.address):
            return ray.init(**_start_options(settings), job_config=JobConfig(metadata=dict(job))).dashboard_url or ""
    except AuthenticationError as error:
        # RAY_AUTH_TOKEN_PATH names a file that is not there, or empty: no lost Ray, and no better the next time.
        raise ResourceError(f"Ray: {str(error).partition('. ')[0]}. Mend or unset it; without it Ray makes a token of its own") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {settings.address}" if settings.address else "Ray on this machine"
        raise ResourceError(f"{where} cannot be reached or started: {error}") from error
    except SystemExit as terminated:
        # ray.init (2.60) installs a handler of SIGTERM that raises this.
        raise KeyboardInterrupt from terminated
    except Exception as error:
        # Ray (2.60) raises a plain Exception where its processes are too slow on a busy machine; another start may be quicker.
        if type(error) is not Exception:
            raise
        raise RayLostError(f"it did not start: {error}") from error
