"""A real cluster of separate hosts with their own network, folders, name and processes. They share only the results folder."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.namespaces import Host, Network, temporary_network, why_impossible
from tests.cluster.nodes import (
    ENDLESS,
    ROOT,
    Cluster,
    interrupt_and_check,
    output,
    reporting_nodes,
    search,
    wait_until,
)

pytestmark = pytest.mark.cluster

HOME = {"HOME": "/tmp/home"}


@pytest.fixture
def hosts(tmp_path) -> Iterator[Network]:
    if reason := why_impossible():
        pytest.skip(reason)
    with temporary_network(tmp_path) as network:
        yield network


def test_a_search_on_three_hosts_continues_when_one_is_lost_and_uses_one_that_joins(hosts, tmp_path, tiny_data):
    results = tmp_path / "results"
    results.mkdir()
    # Only the driver's host has our code and the digits.
    head, first, driver = (
        hosts.host(name, [results, *more]) for name, more in (("head", []), ("first", []), ("driver", [ROOT, tiny_data]))
    )
    cluster = Cluster(tmp_path, head_ip=head.ip)
    try:
        for host in (head, driver):
            cluster.start(host.name, prefix=host.prefix, env=HOME)
        with refused_drivers(cluster, driver, head, tiny_data):
            cluster.start(first.name, prefix=first.prefix, env=HOME)
        run = search_on(cluster, driver, "run", cluster.address, tiny_data, "--samples", ENDLESS, "--max-epochs", 6)
        wait_until(lambda: reporting_nodes(cluster, "run") == {"head", "first", "driver"}, run)
        first.lose()
        joined = hosts.host("joined", [results])
        cluster.start("joined", prefix=joined.prefix, env=HOME)
        wait_until(lambda: "joined" in reporting_nodes(cluster, "run"), run)
        interrupt_and_check(cluster, "run", run, num_epochs=6)
    finally:
        cluster.close()
    assert re.search(r"workers: .*3 nodes", output(cluster, "run"))
    for word in ("Traceback", "raylet"):
        assert word not in output(cluster, "run")


def search_on(
    cluster: Cluster, host: Host, name: str, address: str, data: Path, *argv: object, env: dict[str, str] | None = None
) -> subprocess.Popen:
    """Start a search whose driver runs on this host."""
    before = [*host.prefix, "env", f"--chdir={ROOT}"]
    return search(cluster, name, "--address", address, "--data", data, *argv, before=before, env=env)


@contextmanager
def refused_drivers(cluster: Cluster, driver: Host, head: Host, data: Path) -> Iterator[None]:
    """Start drivers with a wrong token and with a wrong address on another host; check their messages at the end."""
    wrong = search_on(cluster, driver, "wrong", cluster.address, data, env={"RAY_AUTH_TOKEN": "f" * 64})
    dead = search_on(cluster, driver, "dead", f"{head.ip}:9", data)
    yield
    assert (wrong.wait(60), dead.wait(60)) == (2, 2)
    assert "expected its authentication token, found another" in output(cluster, "wrong")
    assert "cannot be reached: Connection refused" in output(cluster, "dead")
    for name in ("wrong", "dead"):
        assert "Traceback" not in output(cluster, name)
