"""Real runs of the smoke configuration: one for the tests of many files, and what was seen of it while it went on."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}
# Ray hands metrics on every 10 s, in which much of a run as short as this one would go by unseen.
ENVIRONMENT["RAY_metrics_report_interval_ms"] = "1000"
SAMPLE_LINE = re.compile(r"^(ray_digit_search_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Seen:
    """A run while it goes on: what it printed, and what Ray told others about it."""

    folder: Path
    dashboard: str = ""
    """Its address."""
    token: str = ""
    job: dict[str, object] = field(default_factory=dict)
    """What Ray tells of it."""
    tasks: dict[str, float | None] = field(default_factory=dict)
    """How long every task that Ray ever told of ran, in seconds, by its name; None where it still ran at the last look."""
    metrics: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=lambda: defaultdict(list))
    """Labels and value of every sample of ours that was ever exported, by the metric's name."""
    descendants: set[psutil.Process] = field(default_factory=set)
    stdout: str = ""
    stderr: str = ""


@contextmanager
def smoke_process(results: Path, name: str, *options: str) -> Iterator[subprocess.Popen]:
    """The smoke configuration with these options, running; its output goes to `out` and `err` in `results`."""
    argv = [sys.executable, "tune_main.py", "--config", "configs/smoke.toml", "--name", name, "--results", str(results), *options]
    with (results / "out").open("w") as out, (results / "err").open("w") as err:
        process = subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, stdout=out, stderr=err)
    try:
        yield process
    finally:
        # Ctrl-C: what is still going on ends by itself, with its Ray.
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def announced_dashboard(results: Path) -> tuple[str, str] | None:
    """Address of the dashboard and its token, as soon as the run in `results` has printed where they are."""
    found = re.search(r"^Ray dashboard: (http\S+) ", (results / "out").read_text(), re.MULTILINE)
    if not found:
        return None
    # As the line says, and as a user would.
    command = [Path(sys.executable).with_name("ray"), "get-auth-token"]
    return found[1], subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout.split()[-1]


def run_smoke(results: Path) -> Seen:
    """Run the smoke configuration to its end."""
    seen = Seen(results / "smoke")
    with smoke_process(results, "smoke") as process:
        _watch(seen, process)
    seen.stdout, seen.stderr = (results / "out").read_text(), (results / "err").read_text()
    assert process.returncode == 0, seen.stdout + seen.stderr
    return seen


def _watch(seen: Seen, process: subprocess.Popen) -> None:
    """Wait for the run to end; note all the processes that descended from it, and what Ray exports of ours."""
    exporter = ""
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.descendants |= set(psutil.Process(process.pid).children(recursive=True))
        if not seen.dashboard:
            seen.dashboard, seen.token = announced_dashboard(seen.folder.parent) or ("", "")
        # Ray goes away before the run does.
        with contextlib.suppress(OSError):
            if seen.dashboard and not exporter:
                seen.job, exporter = _ask(seen, "/api/jobs/")[0], _exporter(seen)
            if exporter:
                _scrape(seen, exporter)
                answer = _ask(seen, "/api/v0/tasks?limit=1000&detail=true")["data"]["result"]["result"]
                begun = {task["name"]: (task["start_time_ms"], task["end_time_ms"]) for task in answer if task["start_time_ms"]}
                seen.tasks |= {name: (end - start) / 1000 if end else None for name, (start, end) in begun.items()}
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)


def _ask(seen: Seen, path: str) -> Any:
    request = urllib.request.Request(seen.dashboard + path, headers={"Authorization": f"Bearer {seen.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def _exporter(seen: Seen) -> str:
    """Where the run's only node exports."""
    (node,) = _ask(seen, "/nodes?view=summary")["data"]["summary"]
    return f"http://127.0.0.1:{node['raylet']['metricsExportPort']}/metrics"


def _scrape(seen: Seen, exporter: str) -> None:
    with urllib.request.urlopen(exporter, timeout=10) as answer:
        for name, labels, value in SAMPLE_LINE.findall(answer.read().decode()):
            sample = (dict(LABEL.findall(labels)), float(value))
            if sample not in seen.metrics[name]:
                seen.metrics[name].append(sample)
