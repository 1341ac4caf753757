"""Real runs of a small configuration, to be broken: with one worker on the CPU, nothing may differ from a run that was left alone."""

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
SETTINGS = ["search.samples=4", "search.startup_trials=2", "search.asha.max_epochs=3", "search.asha.reduction_factor=2"]
SETTINGS += ["retrain.max_epochs=4", "resources.workers=1", "ray.dashboard=false", "search.space.batch_size.choices=[32,64]"]
SETTINGS += ["search.max_failures=20", "search.trial_timeout=20s"]
TIMES = ("seconds", "node")
FINAL = ("completed", "stopped", "failed")


class Run:
    """A run of the configuration above, and the process that works on it."""

    def __init__(self, results: Path, data: Path, *, scheme: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Take where it is kept: `scheme` makes that a URI."""
        # All have one name, because best.toml holds it.
        self.folder = results / "run"
        self._scheme = scheme
        self._environment = {**os.environ, **(environment or {})}
        self._data = data
        self._log = results.parent / f"{results.name}.out"
        self.process: subprocess.Popen | None = None
        self._events_before = 0

    def is_begun(self) -> bool:
        """Whether there is something to resume."""
        return (self.folder / "config.toml").exists()

    def start(self) -> None:
        """Begin the run, or go on with it."""
        if self.is_begun():
            argv = ["resume", f"{self._scheme}{self.folder}"]
        else:
            argv = ["--data", self._data, "--results", f"{self._scheme}{self.folder.parent}", "--name", self.folder.name]
            argv += [part for setting in SETTINGS for part in ("--set", setting)]
        self._events_before = len(self.events())
        with self._log.open("w") as log:
            # A session of its own, so that a Ctrl-C can reach the whole group, as a terminal's does.
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
        """What this process has printed."""
        return self._log.read_text(errors="replace")

    def end(self, *codes: int) -> None:
        """Wait for the process to end with one of these codes."""
        assert self.process.wait(600) in codes, f"exit code {self.process.returncode}:\n{self.output}"

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def wait_for(self, is_there: Callable[[list[dict[str, Any]]], bool]) -> bool:
        """Until the events that this process wrote are such, or it ends; whether they are."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            if is_there(self.events()[self._events_before :]):
                return True
            time.sleep(0.02)
        return False

    def processes(self, *words: str) -> list[psutil.Process]:
        """The driver's descendants; those alone whose command has one of the words, where some are given."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in found if not words or any(word in _command(process) for word in words)]

    def interrupt(self) -> None:
        """Ctrl-C in a terminal: it goes to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def products(self) -> dict[str, object]:
        """All that must not depend on interruptions."""
        tables = {}
        for name in ("trials.csv", "epochs.csv", "rungs.csv"):
            with (self.folder / name).open(newline="") as file:
                tables[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
        return tables | {name: (self.folder / name).read_bytes() for name in ("DigitRecognitionResNet18.pt", "solution.csv", "best.toml")}

    def lost_and_doubled(self) -> tuple[int, int]:
        """How many trials are missing, and how many were run again after they had ended."""
        ended: set[int] = set()
        again: set[int] = set()
        for event in self.events():
            if event.get("trial") in ended and event["event"] in ("trial_started", "epoch", "trial_ended"):
                again.add(event["trial"])
            if event["event"] == "trial_ended" and event["status"] in FINAL:
                ended.add(event["trial"])
        return 4 - len(ended), len(again)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill_all(processes: list[psutil.Process]) -> bool:
    """Kill them; whether there were any."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return bool(processes)


def assert_gone(processes: list[psutil.Process]) -> None:
    """Without the guardian two of Ray's agents would stay for 60 s after their driver's death."""
    _, alive = psutil.wait_procs(processes, timeout=40)
    assert not alive, [_command(process) for process in alive]


def reported(trial: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(event["event"] == "epoch" and event["trial"] == trial for event in events)


def in_phase(name: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(event["event"] == "phase" and event["name"] == name for event in events)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run would go on from."""
    return max(folder.rglob("checkpoint_?.pt"), key=lambda path: path.stat().st_mtime, default=None)
