"""Which cluster is joined, and what is said where that cannot be; no cluster."""

import json
import socket
import zipfile
from collections.abc import Iterator

import pytest
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import AuthenticationError

from digit_search.cluster import connect
from digit_search.cluster.connect import address_to_join, check_cluster, code_for_workers
from digit_search.errors import ResourceError


def test_a_stray_address_in_the_environment_joins_nothing(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv(RAY_JOB_CONFIG_JSON_ENV_VAR, raising=False)
    assert address_to_join("") == ""
    assert address_to_join("10.0.0.2:6379") == "10.0.0.2:6379"


def test_a_job_joins_the_cluster_that_it_was_submitted_to(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}")
    assert address_to_join("") == "10.0.0.1:6379"


@pytest.mark.parametrize("address", ["head", "10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:0", "10.0.0.1:65536", "a b:6379"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ResourceError, match="expected auto or HOST:PORT"):
        check_cluster(address)


def test_an_address_where_nobody_listens_is_told_at_once():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ResourceError, match=r"cannot be reached: Connection refused\. Is it up"):
            check_cluster(f"127.0.0.1:{unused.getsockname()[1]}")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_where_no_ray_answers_is_bounded_in_time(monkeypatch, silent):
    monkeypatch.setattr(connect, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ResourceError, match=r"does not answer as Ray's head does: no answer of a Ray within 0\.2 s"):
        check_cluster(silent)


def test_other_versions_are_named(monkeypatch, silent):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(connect, "_ask_versions", lambda address: {"ray_version": "2.9.0", "python_version": "3.9.1"})
    with pytest.raises(ResourceError, match=r"has Ray 2\.9\.0 instead of .* and Python 3\.9\.1 instead of"):
        check_cluster(silent)


def test_workers_are_sent_our_code_and_no_digits(tmp_path):
    sent = code_for_workers()
    package = tmp_path / "package.zip"
    (module,) = sent["py_modules"]
    create_package(module, package, include_gitignore=True, include_parent_dir=True, excludes=sent["excludes"])
    assert package.stat().st_size < 1 << 20
    names = zipfile.ZipFile(package).namelist()
    assert "digit_search/search/worker.py" in names
    assert not [name for name in names if name.endswith((".gz", ".csv", ".pyc"))]


def test_a_job_that_brought_its_folder_sends_nothing_more(monkeypatch):
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, json.dumps({"runtime_env": {"working_dir": "gcs://x.zip"}}))
    assert code_for_workers() == {}


def test_a_token_file_that_is_not_there_is_told_with_what_to_do(monkeypatch, silent):
    def load(**given):
        raise AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: /none. Ensure that the token")

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/none")
    monkeypatch.setattr(connect, "maybe_enable_token_auth_if_token_available", load)
    with pytest.raises(ResourceError, match=r"cannot be opened or is empty: /none\. Give it the cluster's token"):
        check_cluster(silent)
