"""Real runs of a small configuration. With one worker on the CPU, an interrupted run must give the same bytes as an untouched one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
NUM_TRIALS = 4
SETTINGS = [f"search.samples={NUM_TRIALS}", "search.startup_trials=2", "search.asha.max_epochs=3", "search.asha.reduction_factor=2"]
SETTINGS += ["retrain.max_epochs=4", "resources.workers=1", "ray.dashboard=false", "search.space.batch_size.choices=[32,64]"]
SETTINGS += ["search.max_failures=20", "search.trial_timeout=20s"]
TIMES = ("seconds", "node")
FINAL = ("completed", "stopped", "failed")


class Run:
    """A run of the configuration above, and its driver process."""

    def __init__(self, results: Path, data: Path, *, scheme: str = "", environment: Mapping[str, str] | None = None) -> None:
        """`results` is the parent folder of the run; with a `scheme` such as `file://` it is passed to the driver as a URI."""
        # All runs have the same name, because best.toml contains it.
        self.folder = results / "run"
        self._scheme = scheme
        self._environment = {**os.environ, **(environment or {})}
        self._data = data
        self._log = results.parent / f"{results.name}.out"
        self.process: subprocess.Popen | None = None
        self._events_before = 0

    def can_resume(self) -> bool:
        """Whether the run's folder has been written."""
        return (self.folder / "config.toml").exists()

    def start(self) -> None:
        """Start the run, or resume it where its folder exists."""
        if self.can_resume():
            argv = ["resume", f"{self._scheme}{self.folder}"]
        else:
            argv = ["--data", self._data, "--results", f"{self._scheme}{self.folder.parent}", "--name", self.folder.name]
            argv += [part for setting in SETTINGS for part in ("--set", setting)]
        self._events_before = len(self.events())
        with self._log.open("w") as log:
            # A new session, so that `interrupt` can signal the whole process group, as a terminal does.
            self.process = subprocess.Popen(
                [sys.executable, "tune_main.py", *map(str, argv)],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What the latest driver has printed."""
        return self._log.read_text(errors="replace")

    def wait(self, *codes: int) -> None:
        """Wait for the driver to exit with one of these codes."""
        assert self.process.wait(600) in codes, f"exit code {self.process.returncode}:\n{self.output}"

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def wait_until(self, condition: Callable[[list[dict[str, Any]]], bool]) -> bool:
        """Wait until the condition is true of the events of this driver; False if the driver exits before that."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            if condition(self.events()[self._events_before :]):
                return True
            time.sleep(0.02)
        return False

    def processes(self, *words: str) -> list[psutil.Process]:
        """The driver's descendants. With `words`, only those whose command line contains one of them."""
        try:
            descendants = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in descendants if not words or any(word in _command(process) for word in words)]

    def interrupt(self) -> None:
        """Ctrl-C as a terminal sends it: to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def products(self) -> dict[str, object]:
        """The files that must be the same however often the run was interrupted; tables without times and nodes."""
        tables = {}
        for name in ("trials.csv", "epochs.csv", "rungs.csv"):
            with (self.folder / name).open(newline="") as file:
                tables[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
        return tables | {name: (self.folder / name).read_bytes() for name in ("DigitRecognitionResNet18.pt", "solution.csv", "best.toml")}

    def lost_and_repeated(self) -> tuple[int, int]:
        """How many trials are missing, and how many ran again after they had ended."""
        ended: set[int] = set()
        repeated: set[int] = set()
        for event in self.events():
            if event.get("trial") in ended and event["event"] in ("trial_started", "epoch", "trial_ended"):
                repeated.add(event["trial"])
            if event["event"] == "trial_ended" and event["status"] in FINAL:
                ended.add(event["trial"])
        return NUM_TRIALS - len(ended), len(repeated)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill_all(processes: list[psutil.Process]) -> bool:
    """Kill these processes; return whether there were any."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return bool(processes)


AGENTS = ("DashboardAgent", "RuntimeEnvAgent")
"""Ray (2.60) ends them 61 to 63 s after their driver was killed; its other processes are gone within 3 s."""


def assert_gone(processes: list[psutil.Process], *, except_agents: bool = False, was_killed: bool = False) -> None:
    """Wait for these processes to end. Two agents outlive a driver that `was_killed`; `except_agents` does not wait for them."""
    if except_agents:
        processes = [process for process in processes if not any(name in _command(process) for name in AGENTS)]
    _, alive = psutil.wait_procs(processes, timeout=40 if except_agents or not was_killed else 90)
    assert not alive, [_command(process) for process in alive]


def has_reported(trial: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(event["event"] == "epoch" and event["trial"] == trial for event in events)


def is_in_phase(name: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(event["event"] == "phase" and event["name"] == name for event in events)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint from which a run would resume."""
    return max(folder.rglob("checkpoint_?.pt"), key=lambda path: path.stat().st_mtime, default=None)
