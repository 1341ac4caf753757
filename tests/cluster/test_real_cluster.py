"""Real searches on real nodes: one machine, each node with processes of its own, token authentication on."""

import os
import signal
import subprocess
import sys

import pytest

from tests.cluster.nodes import Cluster, output, reports, search, trials, wait_until


@pytest.fixture
def on_two_nodes(cluster) -> Cluster:
    cluster.start("head")
    cluster.start("second")
    return cluster


def test_a_search_goes_on_when_a_node_dies_and_uses_one_that_joins(on_two_nodes, tiny_data):
    cluster = on_two_nodes
    run = search(cluster, "run", "--address", cluster.address, "--data", tiny_data, "--samples", 14, "--max-epochs", 4)
    wait_until(lambda: len({report["node"] for report in reports(cluster, "run")}) == 2, run)
    cluster.kill("second")
    dead = {report["node"] for report in reports(cluster, "run")}
    cluster.start("third")
    assert run.wait(200) == 0, output(cluster, "run")
    rows = trials(cluster, "run")
    assert [row["status"] for row in rows] == ["completed"] * 14, output(cluster, "run")
    assert {row["epochs"] for row in rows} == {"4"}
    # Three nodes on one host have three names.
    assert len({report["node"] for report in reports(cluster, "run")} - dead) == 1, output(cluster, "run")
    # No report was lost or repeated.
    assert sorted((report["trial"], report["metrics"]["epoch"]) for report in reports(cluster, "run")) == [
        (trial, epoch) for trial in range(14) for epoch in (1.0, 2.0, 3.0, 4.0)
    ]


def test_a_wrong_token_and_none_are_one_message(cluster, tiny_data):
    cluster.start("head")
    runs = [
        search(cluster, name, "--address", cluster.address, "--data", tiny_data, env={"RAY_AUTH_TOKEN": token})
        for name, token in (("another", "f" * 64), ("none", ""))
    ]
    for run, name in zip(runs, ("another", "none"), strict=True):
        assert run.wait(60) == 2
        told = output(cluster, name)
        assert f"authentication token, found {name}" in told
        assert "RAY_AUTH_TOKEN_PATH" in told
        assert "Traceback" not in told
        assert "gcs_client" not in told


def test_two_searches_share_a_cluster_and_keep_apart_and_an_interrupt_of_one_hurts_nobody(on_two_nodes, tiny_data):
    cluster = on_two_nodes
    options = ("--address", cluster.address, "--data", tiny_data, "--max-epochs", 3)
    first = search(cluster, "first", *options, "--samples", 40)
    wait_until(lambda: len({report["node"] for report in reports(cluster, "first")}) == 2, first)
    second = search(cluster, "second", *options, "--samples", 4)
    assert second.wait(200) == 0, output(cluster, "second")
    assert first.poll() is None, output(cluster, "first")
    assert "2 searches share" in output(cluster, "first")
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 130, output(cluster, "first")
    assert "Traceback" not in output(cluster, "first")
    assert [row["status"] for row in trials(cluster, "second")] == ["completed"] * 4
    # The cluster goes on, and nothing of either search is left on it.
    assert living_actors(cluster) == []


def living_actors(cluster: Cluster) -> list[str]:
    code = (
        "import ray, time\n"
        f"ray.init(address='{cluster.address}', log_to_driver=False, logging_level='ERROR')\n"
        "alive = lambda: [a['Name'] or a['ActorID'] for a in ray._private.state.actors().values() if a['State'] not in ('DEAD',)]\n"
        "deadline = time.monotonic() + 20\n"
        "while alive() and time.monotonic() < deadline: time.sleep(0.2)\n"
        "print(*alive())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cluster.environment, cwd=cluster.folder, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()
