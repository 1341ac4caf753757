"""Real runs of the smoke configuration. One is shared by many tests, with what could be observed while it was running."""

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
# Ray exports metrics every 10 s by default. That is too rare for a run this short.
ENVIRONMENT["RAY_metrics_report_interval_ms"] = "1000"
SAMPLE_LINE = re.compile(r"^(ray_digit_search_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class ObservedRun:
    """What a run printed, and what Ray reported about it while it was running."""

    folder: Path
    dashboard: str = ""
    """Its address; "" until the run has printed it."""
    token: str = ""
    job: dict[str, object] = field(default_factory=dict)
    """Ray's record of the job."""
    tasks: dict[str, float | None] = field(default_factory=dict)
    """Seconds that each task ran, by its name; None if it was still running when Ray was last asked."""
    metrics: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=lambda: defaultdict(list))
    """Labels and value of every exported sample of our metrics, by the metric's name."""
    descendants: set[psutil.Process] = field(default_factory=set)
    stdout: str = ""
    stderr: str = ""


@contextmanager
def smoke_process(results: Path, name: str, *options: str) -> Iterator[subprocess.Popen]:
    """Run the smoke configuration with these options; its output goes to `out` and `err` in `results`."""
    argv = [sys.executable, "tune_main.py", "--config", "configs/smoke.toml", "--name", name, "--results", str(results), *options]
    with (results / "out").open("w") as out, (results / "err").open("w") as err:
        process = subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, stdout=out, stderr=err)
    try:
        yield process
    finally:
        # As Ctrl-C does: the run stops its Ray and exits.
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def announced_dashboard(results: Path) -> tuple[str, str] | None:
    """Address and token of the dashboard; None while the run in `results` has not printed the address."""
    match = re.search(r"^Ray dashboard: (http\S+) ", (results / "out").read_text(), re.MULTILINE)
    if not match:
        return None
    # The command that the line names.
    command = [Path(sys.executable).with_name("ray"), "get-auth-token"]
    return match[1], subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout.split()[-1]


def run_smoke(results: Path) -> ObservedRun:
    """Run the smoke configuration to its end."""
    observed = ObservedRun(results / "smoke")
    with smoke_process(results, "smoke") as process:
        _observe(observed, process)
    observed.stdout, observed.stderr = (results / "out").read_text(), (results / "err").read_text()
    assert process.returncode == 0, observed.stdout + observed.stderr
    return observed


def _observe(observed: ObservedRun, process: subprocess.Popen) -> None:
    """Wait for the run to end. Meanwhile record its descendants and what Ray reports and exports."""
    exporter = ""
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            observed.descendants |= set(psutil.Process(process.pid).children(recursive=True))
        if not observed.dashboard:
            observed.dashboard, observed.token = announced_dashboard(observed.folder.parent) or ("", "")
        # Ray stops before the run exits.
        with contextlib.suppress(OSError):
            if observed.dashboard and not exporter:
                observed.job, exporter = _ask(observed, "/api/jobs/")[0], _exporter(observed)
            if exporter:
                _scrape(observed, exporter)
                tasks = _ask(observed, "/api/v0/tasks?limit=1000&detail=true")["data"]["result"]["result"]
                started = {task["name"]: (task["start_time_ms"], task["end_time_ms"]) for task in tasks if task["start_time_ms"]}
                observed.tasks |= {name: (end - start) / 1000 if end else None for name, (start, end) in started.items()}
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)


def _ask(observed: ObservedRun, path: str) -> Any:
    request = urllib.request.Request(observed.dashboard + path, headers={"Authorization": f"Bearer {observed.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def _exporter(observed: ObservedRun) -> str:
    """The address at which the run's only node exports metrics."""
    (node,) = _ask(observed, "/nodes?view=summary")["data"]["summary"]
    return f"http://127.0.0.1:{node['raylet']['metricsExportPort']}/metrics"


def _scrape(observed: ObservedRun, exporter: str) -> None:
    with urllib.request.urlopen(exporter, timeout=10) as answer:
        for name, labels, value in SAMPLE_LINE.findall(answer.read().decode()):
            sample = (dict(LABEL.findall(labels)), float(value))
            if sample not in observed.metrics[name]:
                observed.metrics[name].append(sample)
