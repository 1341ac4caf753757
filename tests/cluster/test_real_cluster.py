"""Real searches on a real cluster with token authentication. All nodes are on one machine."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests.cluster.nodes import (
    ENDLESS,
    RAY,
    ROOT,
    Cluster,
    interrupt_and_check,
    output,
    reporting_nodes,
    reports,
    search,
    trials,
    wait_until,
)

pytestmark = pytest.mark.cluster


def test_a_wrong_or_missing_token_gives_one_clear_message(cluster, tiny_data):
    options = ("--address", cluster.address, "--data", tiny_data)
    runs = {name: search(cluster, name, *options, env={"RAY_AUTH_TOKEN": token}) for name, token in (("another", "f" * 64), ("none", ""))}
    for name, run in runs.items():
        assert run.wait(60) == 2
        printed = output(cluster, name)
        assert f"authentication token, found {name}" in printed
        assert "RAY_AUTH_TOKEN_PATH" in printed
        assert "Traceback" not in printed
        assert "gcs_client" not in printed


def test_a_search_and_a_submitted_job_share_the_cluster_and_either_can_be_interrupted(cluster, tiny_data):
    first = search(cluster, "first", "--address", cluster.address, "--data", tiny_data, "--samples", ENDLESS)
    wait_until(lambda: len({report["trial"] for report in reports(cluster, "first")}) > 1, first)
    # Without --address a job joins the cluster to which it was submitted. The cluster has only one node here: Ray's nodes on one host share
    # the folder into which a job's working folder is unpacked, and delete it while others use it.
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
    # The cluster is still running, and no actor of the searches is left.
    assert living_actors(cluster) == []


def living_actors(cluster: Cluster) -> list[str]:
    """Actors of searches that are still alive after 20 s."""
    code = (
        "import time\n"
        "from ray.util.state import list_actors\n"
        f"alive = lambda: list_actors('{cluster.dashboard}', filters=[('state', '!=', 'DEAD')])\n"
        "ours = lambda: [actor.class_name for actor in alive() if 'Job' not in actor.class_name]\n"
        "deadline = time.monotonic() + 20\n"
        "while ours() and time.monotonic() < deadline: time.sleep(0.2)\n"
        "print(*ours())\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], env=cluster.environment, cwd=cluster.folder, capture_output=True, text=True, timeout=60, check=True
    )
    return finished.stdout.split()


def test_a_search_continues_when_a_node_dies_and_uses_a_node_that_joins(cluster, tiny_data):
    cluster.start("second")
    run = search(cluster, "run", "--address", cluster.address, "--data", tiny_data, "--samples", ENDLESS, "--max-epochs", 4)
    wait_until(lambda: len(reporting_nodes(cluster, "run")) == 2, run)
    cluster.kill("second")
    before = reporting_nodes(cluster, "run")
    cluster.start("third")
    # The nodes on one host have different names, and the new one gets trials.
    wait_until(lambda: reporting_nodes(cluster, "run") - before, run)
    interrupt_and_check(cluster, "run", run, num_epochs=4)
    assert len(reporting_nodes(cluster, "run") - before) == 1, output(cluster, "run")
    assert re.search(r"the cluster has 2 nodes: 3 trials at a time", output(cluster, "run"))


def test_a_node_that_cannot_write_to_the_results_is_an_error_at_the_start(cluster, tiny_data):
    results = cluster.folder / "results"
    results.mkdir(exist_ok=True)
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {shlex.quote(str(results))} && exec "$@"', "hidden"]
    if subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("needs root on Linux, to create a mount namespace")
    cluster.start("blind", prefix=hide)
    run = search(cluster, "unreached", "--address", cluster.address, "--data", tiny_data)
    assert run.wait(120) == 2, output(cluster, "unreached")
    assert re.search(r"1 of the cluster's \d nodes cannot keep checkpoints there .*No such file", output(cluster, "unreached"))
    assert "Give --results a folder that all nodes share" in output(cluster, "unreached")
    assert not reports(cluster, "unreached")
    assert not list((results / "unreached").rglob(".reach-*"))
