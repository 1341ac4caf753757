"""Real nodes of a Ray cluster. Each is a `ray start --block`, and all of their processes are ended after the tests."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

TOKEN = "0123456789abcdef" * 4
RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 90.0
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A head and workers, on this host or in network namespaces. They get our code only from a search's runtime environment."""

    def __init__(self, folder: Path, *, token: str = TOKEN, head_ip: str = "") -> None:
        """The nodes write their logs to `folder` and run there. With the token "", Ray's authentication is off."""
        self.folder = folder
        self.ip = head_ip or _own_address()
        self.address = f"{self.ip}:{free_port()}"
        self.dashboard = f"http://{self.ip}:{free_port()}"
        self.token = token
        self._nodes: dict[str, subprocess.Popen] = {}
        self._processes: set[psutil.Process] = set()
        (folder / "empty").mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of nodes and drivers, without variables that name another cluster."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH", "OMP_NUM_THREADS"))}
        # Not the user's home folder, where Ray may find a token.
        kept |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        kept |= {"HOME": str(self.folder), "RAY_AUTH_MODE": "token" if self.token else "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        # Ray notices a dead node within seconds.
        kept |= {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000"}
        return kept | ({"RAY_AUTH_TOKEN": self.token} if self.token else {})

    def start(self, name: str, *options: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start a node and wait until it has started. The first one is the head."""
        port = self.address.rpartition(":")[2]
        first = ["--head", f"--port={port}", f"--node-ip-address={self.ip}"] if not self._nodes else [f"--address={self.address}"]
        if not self._nodes:
            first += ["--dashboard-host", self.ip, "--dashboard-port", self.dashboard.rpartition(":")[2]]
        fixed = ["--block", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
        # All nodes may be on one machine, so they need different ports.
        fixed += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
        log = self.folder / f"{name}.out"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*prefix, RAY, "start", *first, *fixed, *options],
                cwd=self.folder / "empty",
                env={**self.environment, **(env or {})},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes[name] = process
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        self.note_processes()
        return process

    def note_processes(self) -> None:
        """Remember all processes of the nodes, so that `close` can end them."""
        for process in self._nodes.values():
            with contextlib.suppress(psutil.Error):
                node = psutil.Process(process.pid)
                self._processes |= {node, *node.children(recursive=True)}

    def processes(self, name: str) -> list[psutil.Process]:
        """The node's processes that are alive."""
        try:
            node = psutil.Process(self._nodes[name].pid)
            return [node, *node.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str) -> None:
        """End a node at once, as a power cut does."""
        self.note_processes()
        for process in self.processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._nodes[name].wait(20)

    def close(self) -> None:
        """End all processes that the nodes have started."""
        for name in reversed(self._nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.kill(name)
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(self._processes, timeout=20)


def _own_address() -> str:
    """The address that Ray uses for this machine instead of a loopback address."""
    from ray.util import get_node_ip_address

    return get_node_ip_address()


SETTINGS = ("search.startup_trials=2", "search.asha.enabled=false", "search.space.batch_size.choices=[32,64]")
SETTINGS += ("search.asha.max_epochs=2", "retrain.max_epochs=1", "ray.dashboard=false")
# So many trials that no machine finishes them before the test interrupts the search.
ENDLESS = 1000


def search(
    cluster: Cluster, name: str, *argv: object, before: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start `tune_main.py` outside of the repository; its output goes to `<name>.log`. `before` is a prefix that runs it elsewhere."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    program = ["python", "tune_main.py"] if before else [sys.executable, ROOT / "tune_main.py"]
    command = [*before, *program, "--results", cluster.folder / "results", "--name", name, *settings, *argv]
    with (cluster.folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=cluster.folder,
            env=cluster.environment | dict(env or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def output(cluster: Cluster, name: str) -> str:
    return (cluster.folder / f"{name}.log").read_text(errors="replace")


def trials(cluster: Cluster, name: str) -> list[dict[str, str]]:
    """The rows of a run's trials.csv."""
    with (cluster.folder / "results" / name / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def wait_until(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 120.0) -> None:
    """Wait until the condition is true. The process must not end before that."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the search ended too early"
        assert time.monotonic() < deadline, f"the condition was not true within {seconds:g} s"
        time.sleep(0.05)


def events(cluster: Cluster, name: str) -> list[dict]:
    """The events of a run so far."""
    path = cluster.folder / "results" / name / "events.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def reports(cluster: Cluster, name: str) -> list[dict]:
    """The reports of a run's trials so far."""
    return [event for event in events(cluster, name) if event["event"] == "epoch"]


def reporting_nodes(cluster: Cluster, name: str) -> set[str]:
    """The nodes whose trials have reported so far."""
    return {report["node"] for report in reports(cluster, name)}


def interrupt_and_check(cluster: Cluster, name: str, run: subprocess.Popen, num_epochs: int) -> None:
    """Wait until every trial that has started by now has ended, send SIGINT, and check that no report was lost or repeated."""
    started = {report["trial"] for report in reports(cluster, name)}
    wait_until(lambda: started <= {event["trial"] for event in events(cluster, name) if event["event"] == "trial_ended"}, run)
    process = psutil.Process(run.pid)
    # `nsenter` waits for the driver, which is its child.
    driver = process.children()[0] if process.name() == "nsenter" else process
    driver.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, output(cluster, name)

    epochs = defaultdict(list)
    for report in reports(cluster, name):
        epochs[report["trial"]].append(report["metrics"]["epoch"])
    statuses = {int(row["trial"]): row["status"] for row in trials(cluster, name)}
    assert set(statuses.values()) <= {"completed", "interrupted"}, output(cluster, name)
    # Trials of a lost node are completed too. Only the trials that were running at the end are interrupted.
    assert {statuses[trial] for trial in started} == {"completed"}, output(cluster, name)
    assert list(statuses.values()).count("interrupted") <= 3, output(cluster, name)
    assert set(epochs) <= set(statuses)
    for trial, status in statuses.items():
        assert epochs[trial] == list(range(1, len(epochs[trial]) + 1))
        assert status == "interrupted" or len(epochs[trial]) == num_epochs
