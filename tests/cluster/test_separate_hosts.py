"""A real cluster of separate hosts, each with its own network, folders, name and processes: they share the results alone."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.namespaces import Host, Network, network, why_impossible
from tests.cluster.nodes import (
    MORE_THAN_ENOUGH,
    ROOT,
    Cluster,
    assert_ends_in_order,
    nodes_at_work,
    output,
    search,
    wait_until,
)

HOME = {"HOME": "/tmp/home"}


@pytest.fixture
def hosts(tmp_path) -> Iterator[Network]:
    if reason := why_impossible():
        pytest.skip(reason)
    with network(tmp_path) as made:
        yield made


def test_a_search_over_three_hosts_goes_on_when_one_is_lost_and_uses_one_that_joins(hosts, tmp_path, tiny_data):
    results = tmp_path / "results"
    results.mkdir()
    # Our code and the digits are on the driver's host alone.
    head, first, driver = (
        hosts.host(name, [results, *more]) for name, more in (("head", []), ("first", []), ("driver", [ROOT, tiny_data]))
    )
    cluster = Cluster(tmp_path, head_ip=head.ip)
    try:
        for host in (head, driver):
            cluster.start(host.name, prefix=host.prefix, env=HOME)
        with refused(cluster, driver, head, tiny_data):
            cluster.start(first.name, prefix=first.prefix, env=HOME)
        run = started(cluster, driver, "run", cluster.address, tiny_data, "--samples", MORE_THAN_ENOUGH, "--max-epochs", 6)
        wait_until(lambda: nodes_at_work(cluster, "run") == {"head", "first", "driver"}, run)
        first.lose()
        joined = hosts.host("joined", [results])
        cluster.start("joined", prefix=joined.prefix, env=HOME)
        wait_until(lambda: "joined" in nodes_at_work(cluster, "run"), run)
        assert_ends_in_order(cluster, "run", run, num_epochs=6)
    finally:
        cluster.close()
    assert re.search(r"workers: .*3 nodes", output(cluster, "run"))
    for chatter in ("Traceback", "raylet"):
        assert chatter not in output(cluster, "run")


def started(
    cluster: Cluster, host: Host, name: str, address: str, data: Path, *argv: object, env: dict[str, str] | None = None
) -> subprocess.Popen:
    """A search whose driver runs on that host."""
    before = [*host.prefix, "env", f"--chdir={ROOT}"]
    return search(cluster, name, "--address", address, "--data", data, *argv, before=before, env=env)


@contextmanager
def refused(cluster: Cluster, driver: Host, head: Host, data: Path) -> Iterator[None]:
    """A wrong token, and an address where nobody is, are told from another host."""
    wrong = started(cluster, driver, "wrong", cluster.address, data, env={"RAY_AUTH_TOKEN": "f" * 64})
    dead = started(cluster, driver, "dead", f"{head.ip}:9", data)
    yield
    assert (wrong.wait(60), dead.wait(60)) == (2, 2)
    assert "expected its authentication token, found another" in output(cluster, "wrong")
    assert "cannot be reached: Connection refused" in output(cluster, "dead")
    for name in ("wrong", "dead"):
        assert "Traceback" not in output(cluster, name)
