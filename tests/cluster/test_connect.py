"""Which cluster is joined, and the message if that is impossible; no test starts a cluster."""

import json
import socket
import zipfile
from collections.abc import Iterator

import pytest
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import AuthenticationError

from digit_search.cluster import connect
from digit_search.cluster.connect import address_to_join, check_cluster, code_for_workers
from digit_search.errors import ResourceError
from digit_search.private_api import JOB_CONFIG_VARIABLE


def test_an_address_in_the_environment_is_ignored(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv(JOB_CONFIG_VARIABLE, raising=False)
    assert address_to_join("") == ""
    assert address_to_join("10.0.0.2:6379") == "10.0.0.2:6379"


def test_a_submitted_job_joins_its_own_cluster(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(JOB_CONFIG_VARIABLE, "{}")
    assert address_to_join("") == "10.0.0.1:6379"


@pytest.mark.parametrize("address", ["head", "10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:0", "10.0.0.1:65536", "a b:6379"])
def test_an_invalid_address_is_refused(address):
    with pytest.raises(ResourceError, match="expected auto or HOST:PORT"):
        check_cluster(address)


def test_an_address_where_nobody_listens_is_reported_at_once():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ResourceError, match=r"cannot be reached: Connection refused\. Check that it is up"):
            check_cluster(f"127.0.0.1:{unused.getsockname()[1]}")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_waiting_for_an_answer_has_a_time_limit(monkeypatch, silent):
    monkeypatch.setattr(connect, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ResourceError, match=r"does not answer as Ray's head does: no answer within 0\.2 s"):
        check_cluster(silent)


def test_different_versions_are_named(monkeypatch, silent):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(connect, "cluster_metadata", lambda address, timeout: {"ray_version": "2.9.0", "python_version": "3.9.1"})
    with pytest.raises(ResourceError, match=r"has Ray 2\.9\.0 instead of .* and Python 3\.9\.1 instead of"):
        check_cluster(silent)


def test_workers_get_our_code_without_the_digits(tmp_path):
    sent = code_for_workers()
    package = tmp_path / "package.zip"
    (module,) = sent["py_modules"]
    create_package(module, package, include_gitignore=True, include_parent_dir=True, excludes=sent["excludes"])
    assert package.stat().st_size < 1 << 20
    names = zipfile.ZipFile(package).namelist()
    assert "digit_search/search/worker.py" in names
    assert not [name for name in names if name.endswith((".gz", ".csv", ".pyc"))]


def test_a_job_that_brought_its_folder_sends_no_code(monkeypatch):
    monkeypatch.setenv(JOB_CONFIG_VARIABLE, json.dumps({"runtime_env": {"working_dir": "gcs://x.zip"}}))
    assert code_for_workers() == {}


def test_a_missing_token_file_is_reported_with_what_to_do(monkeypatch, silent):
    def load(*, turn_on):
        assert turn_on
        raise AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: /none. Ensure that the token")

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/none")
    monkeypatch.setattr(connect, "load_token", load)
    with pytest.raises(ResourceError, match=r"found none \(RAY_AUTH_TOKEN_PATH .* is empty: /none\)\. Give it the cluster's token"):
        check_cluster(silent)
