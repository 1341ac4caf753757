"""Real nodes of a Ray cluster, each a `ray start --block` of its own, all of them surely ended."""

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
    """A head and workers, on this host or in network namespaces; they know our code from nowhere but a search's runtime environment."""

    def __init__(self, folder: Path, *, token: str = TOKEN, head_ip: str = "") -> None:
        """`folder` takes their logs and is where they run; `token` "" leaves Ray's authentication off."""
        self.folder = folder
        self.ip = head_ip or _own_address()
        self.address = f"{self.ip}:{free_port()}"
        self.dashboard = f"http://{self.ip}:{free_port()}"
        self.token = token
        self._nodes: dict[str, subprocess.Popen] = {}
        self._seen: set[psutil.Process] = set()
        (folder / "empty").mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """For whoever works with the cluster: without what would lead to another one."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH", "OMP_NUM_THREADS"))}
        # A home of its own: no token of the machine's user shall help.
        kept |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        kept |= {"HOME": str(self.folder), "RAY_AUTH_MODE": "token" if self.token else "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        # A dead node is noticed in seconds.
        kept |= {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000"}
        return kept | ({"RAY_AUTH_TOKEN": self.token} if self.token else {})

    def start(self, name: str, *options: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start a node, the head where it is the first; wait until it is there."""
        port = self.address.rpartition(":")[2]
        first = ["--head", f"--port={port}", f"--node-ip-address={self.ip}"] if not self._nodes else [f"--address={self.address}"]
        if not self._nodes:
            first += ["--dashboard-host", self.ip, "--dashboard-port", self.dashboard.rpartition(":")[2]]
        fixed = ["--block", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
        # Ports that are free, since all nodes are on one machine.
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
        self.look()
        return process

    def look(self) -> None:
        """Note every process that there is now, so that none is left behind."""
        for process in self._nodes.values():
            with contextlib.suppress(psutil.Error):
                known = psutil.Process(process.pid)
                self._seen |= {known, *known.children(recursive=True)}

    def processes(self, name: str) -> list[psutil.Process]:
        """The node's processes, as far as they live."""
        try:
            known = psutil.Process(self._nodes[name].pid)
            return [known, *known.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str) -> None:
        """End a node as a power cut does: all of it at once."""
        self.look()
        for process in self.processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._nodes[name].wait(20)

    def close(self) -> None:
        """End every process that the nodes ever started."""
        for name in reversed(self._nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.kill(name)
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(self._seen, timeout=20)


def _own_address() -> str:
    """The address that Ray takes for this machine where it is told a loopback one."""
    import ray._private.services

    return ray._private.services.get_node_ip_address()


SETTINGS = ("search.startup_trials=2", "search.asha.enabled=false", "search.space.batch_size.choices=[32,64]")
SETTINGS += ("search.asha.max_epochs=2", "retrain.max_epochs=1", "ray.dashboard=false")
# Trials for a search that is to be ended while it goes on, however fast the machine is.
MORE_THAN_ENOUGH = 1000


def search(
    cluster: Cluster, name: str, *argv: object, before: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start `tune_main.py` from a folder that is not ours; its output goes to `<name>.log`. `before` may hand it over to elsewhere."""
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


def wait_until(is_so: Callable[[], object], process: subprocess.Popen, seconds: float = 120.0) -> None:
    """Until it is so; the process must go on meanwhile."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, "the search ended too early"
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def events(cluster: Cluster, name: str) -> list[dict]:
    """The events of a run so far."""
    path = cluster.folder / "results" / name / "events.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def reports(cluster: Cluster, name: str) -> list[dict]:
    """The reports of a run's trials so far."""
    return [event for event in events(cluster, name) if event["event"] == "epoch"]


def nodes_at_work(cluster: Cluster, name: str) -> set[str]:
    """The nodes that have reported so far."""
    return {report["node"] for report in reports(cluster, name)}


def assert_ends_in_order(cluster: Cluster, name: str, run: subprocess.Popen, num_epochs: int) -> None:
    """SIGINT to the driver, as soon as every trial that had begun by now is over; no report may have been lost or made twice."""
    begun = {report["trial"] for report in reports(cluster, name)}
    wait_until(lambda: begun <= {event["trial"] for event in events(cluster, name) if event["event"] == "trial_ended"}, run)
    process = psutil.Process(run.pid)
    # One that enters a host's namespaces waits for the driver there.
    driver = process.children()[0] if process.name() == "nsenter" else process
    driver.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, output(cluster, name)

    made = defaultdict(list)
    for report in reports(cluster, name):
        made[report["trial"]].append(report["metrics"]["epoch"])
    statuses = {int(row["trial"]): row["status"] for row in trials(cluster, name)}
    assert set(statuses.values()) <= {"completed", "interrupted"}, output(cluster, name)
    # Also those that a lost node took along are completed; interrupted are as many as ran at the end.
    assert {statuses[trial] for trial in begun} == {"completed"}, output(cluster, name)
    assert list(statuses.values()).count("interrupted") <= 3, output(cluster, name)
    assert set(made) <= set(statuses)
    for trial, status in statuses.items():
        assert made[trial] == list(range(1, len(made[trial]) + 1))
        assert status == "interrupted" or len(made[trial]) == num_epochs
