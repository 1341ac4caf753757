"""Real searches on real nodes: one machine, each node with processes of its own, token authentication on."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests.cluster.nodes import (
    MORE_THAN_ENOUGH,
    RAY,
    ROOT,
    Cluster,
    assert_ends_in_order,
    nodes_at_work,
    output,
    reports,
    search,
    trials,
    wait_until,
)


def test_a_wrong_token_and_none_are_one_message(cluster, tiny_data):
    options = ("--address", cluster.address, "--data", tiny_data)
    runs = {name: search(cluster, name, *options, env={"RAY_AUTH_TOKEN": token}) for name, token in (("another", "f" * 64), ("none", ""))}
    for name, run in runs.items():
        assert run.wait(60) == 2
        told = output(cluster, name)
        assert f"authentication token, found {name}" in told
        assert "RAY_AUTH_TOKEN_PATH" in told
        assert "Traceback" not in told
        assert "gcs_client" not in told


def test_a_search_and_a_submitted_job_share_the_cluster_and_an_interrupt_of_one_hurts_nobody(cluster, tiny_data):
    first = search(cluster, "first", "--address", cluster.address, "--data", tiny_data, "--samples", MORE_THAN_ENOUGH)
    wait_until(lambda: len({report["trial"] for report in reports(cluster, "first")}) > 1, first)
    # No --address: a job joins the cluster that it was submitted to. There is one node: Ray's nodes on one host would share the folder into
    # which a job's working folder is unpacked, and take it from under each other.
    submit = (RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", str(ROOT), "--")
    job = search(cluster, "job", "--data", tiny_data, "--samples", 3, "--set", "ray.dashboard=true", before=submit)
    assert job.wait(200) == 0, output(cluster, "job")
    assert f"joining the cluster at {cluster.address}" in output(cluster, "job")
    assert first.poll() is None, output(cluster, "first")
    assert "shared by 2 searches: 1 trial at a time" in output(cluster, "first")
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 130, output(cluster, "first")
    assert "Traceback" not in output(cluster, "first")
    assert [row["status"] for row in trials(cluster, "job")] == ["completed"] * 3
    assert {row["status"] for row in trials(cluster, "first")} == {"completed", "interrupted"}
    # The cluster goes on, and nothing of either search is left on it.
    assert living_actors(cluster) == []


def living_actors(cluster: Cluster) -> list[str]:
    """Actors of searches, once Ray has ended those that are about to end."""
    code = (
        "import ray, time\n"
        f"ray.init(address='{cluster.address}', log_to_driver=False, logging_level='ERROR')\n"
        "alive = lambda: [a['ActorClassName'] for a in ray._private.state.actors().values() if a['State'] != 'DEAD']\n"
        "ours = lambda: [name for name in alive() if 'Job' not in name]\n"
        "deadline = time.monotonic() + 20\n"
        "while ours() and time.monotonic() < deadline: time.sleep(0.2)\n"
        "print(*ours())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cluster.environment, cwd=cluster.folder, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_a_search_goes_on_when_a_node_dies_and_uses_one_that_joins(cluster, tiny_data):
    cluster.start("second")
    run = search(cluster, "run", "--address", cluster.address, "--data", tiny_data, "--samples", MORE_THAN_ENOUGH, "--max-epochs", 4)
    wait_until(lambda: len(nodes_at_work(cluster, "run")) == 2, run)
    cluster.kill("second")
    before = nodes_at_work(cluster, "run")
    cluster.start("third")
    # Three nodes on one host have three names, and the new one works.
    wait_until(lambda: nodes_at_work(cluster, "run") - before, run)
    assert_ends_in_order(cluster, "run", run, num_epochs=4)
    assert len(nodes_at_work(cluster, "run") - before) == 1, output(cluster, "run")
    assert re.search(r"the cluster has 2 nodes: 3 trials at a time", output(cluster, "run"))


def test_a_node_that_does_not_reach_the_results_is_refused_at_the_start(cluster, tiny_data):
    results = cluster.folder / "results"
    results.mkdir(exist_ok=True)
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {shlex.quote(str(results))} && exec "$@"', "hidden"]
    if subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace, which only root may make, on Linux")
    cluster.start("blind", prefix=hide)
    run = search(cluster, "unreached", "--address", cluster.address, "--data", tiny_data)
    assert run.wait(120) == 2, output(cluster, "unreached")
    assert re.search(r"1 of the cluster's \d nodes cannot keep checkpoints there .*No such file", output(cluster, "unreached"))
    assert "Give --results a folder that all nodes share" in output(cluster, "unreached")
    assert not reports(cluster, "unreached")
    assert not list((results / "unreached").rglob(".reach-*"))
