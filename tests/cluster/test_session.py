"""Starting, joining and stopping Ray."""

import os
import signal
from types import SimpleNamespace

import psutil
import pytest
import ray
from ray.exceptions import AuthenticationError, RayError

from digit_search.cluster import session
from digit_search.cluster.session import _init_options, _time_limit, running_ray
from digit_search.config.settings import RaySettings
from digit_search.errors import RayLostError, ResourceError
from digit_search.private_api import cluster_metadata, search_jobs
from digit_search.run.environment import check_dashboard_host


def test_our_own_ray_never_joins_another_one():
    options = _init_options(RaySettings())
    assert (options["address"], options["dashboard_host"]) == ("local", "127.0.0.1")
    joined = _init_options(RaySettings(address="10.0.0.1:6379"))
    assert joined["address"] == "10.0.0.1:6379"
    assert "object_store_memory" not in joined


@pytest.mark.parametrize(("usable", "counted"), [(8, 8), (1.5, 1), (0.5, 1)])
def test_our_own_ray_counts_the_cores_that_may_be_used(monkeypatch, usable, counted):
    monkeypatch.setattr(session, "usable_cores", lambda: usable)
    assert _init_options(RaySettings())["num_cpus"] == counted
    assert "num_cpus" not in _init_options(RaySettings(address="auto"))


def test_a_start_that_hangs_ends_after_the_time_limit():
    with pytest.raises(ResourceError, match=r"did not start within 0\.05 s"), _time_limit(0.05):
        while True:
            pass


@pytest.fixture
def on_sigterm():
    """A handler of SIGTERM, as a run has one."""

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    yield handler
    signal.signal(signal.SIGTERM, before)


@pytest.mark.ray
def test_our_own_ray_listens_on_loopback_only_keeps_the_sigterm_handler_and_leaves_no_process(on_sigterm):
    # multiprocessing's resource tracker, after other tests.
    earlier = psutil.Process().children()
    with running_ray(RaySettings(), {"run": "demo"}) as dashboard:
        assert signal.getsignal(signal.SIGTERM) is on_sigterm
        assert dashboard.startswith("http://127.0.0.1:")

        @ray.remote(num_cpus=1)
        def warm_up() -> int:
            return os.getpid()

        address = ray.get_runtime_context().gcs_address
        metadata = cluster_metadata(address, timeout_seconds=10)
        jobs = search_jobs()
        children = [child for child in psutil.Process().children(recursive=True) if child not in earlier]
        ours = [psutil.Process(ray.get(warm_up.remote())), *children, psutil.Process()]
        listening = [
            connection.laddr for process in ours for connection in _connections(process) if connection.status == psutil.CONN_LISTEN
        ]
    assert signal.getsignal(signal.SIGTERM) is on_sigterm
    assert len(listening) >= 5
    # What the private API reports about a real Ray.
    assert metadata["ray_version"] == ray.__version__, "ray._raylet.GcsClient.internal_kv_get"
    assert list(jobs.values()) == [{"run": "demo"}], "ray._private.worker.global_worker.gcs_client.get_all_job_info"
    _, alive = psutil.wait_procs([process for process in ours if process.pid != os.getpid()], timeout=10)
    assert not alive
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def _connections(process: psutil.Process) -> list:
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "some.host"])
def test_a_dashboard_open_to_the_network_is_refused_without_rays_token(monkeypatch, host):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with (
        pytest.raises(ResourceError, match=rf"ray\.dashboard_host {host}: expected 127\.0\.0\.1 without Ray's token"),
        running_ray(RaySettings(dashboard_host=host)),
    ):
        pass


def test_a_dashboard_is_allowed_on_the_network_with_the_token_and_on_loopback_without(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    check_dashboard_host(RaySettings(dashboard_host="0.0.0.0"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for host in ("127.0.0.1", "localhost", "::1"):
        check_dashboard_host(RaySettings(dashboard_host=host))
    check_dashboard_host(RaySettings(dashboard_host="0.0.0.0", dashboard=False))


def test_a_sigterm_while_ray_starts_is_an_interrupt(monkeypatch):
    # ray.init (2.60) installs a handler that raises SystemExit.
    def init(**options):
        raise SystemExit(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(KeyboardInterrupt), running_ray(RaySettings()):
        pass


def test_a_missing_token_file_is_reported_at_once_and_not_as_a_lost_ray(monkeypatch):
    def init(**options):
        raise AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: /none. Ensure that much more.")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ResourceError, match=r"RAY_AUTH_TOKEN_PATH is set .*: /none\. Fix or unset that variable"),
        running_ray(RaySettings()),
    ):
        pass


def test_a_ray_that_is_too_slow_to_start_is_a_lost_ray(monkeypatch):
    def init(**options):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RayLostError, match="it did not start: The current node timed out"), running_ray(RaySettings()):
        pass


def test_an_error_of_ray_is_a_lost_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **options: SimpleNamespace(dashboard_url=""))
    with pytest.raises(RayLostError, match="no answer"), running_ray(RaySettings()):
        raise RayError("no answer\nmuch more")
