"""One real run of the smoke configuration for the tests of many files, and what was seen of it while it went on."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
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
    tasks: set[tuple[str, str]] = field(default_factory=set)
    """Name and state of every task that Ray ever told of."""
    metrics: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=lambda: defaultdict(list))
    """Labels and value of every sample of ours that was ever exported, by the metric's name."""
    descendants: set[psutil.Process] = field(default_factory=set)
    visit: Any = None
    """The pages of Ray's dashboard, where there is a browser to see them."""
    stdout: str = ""
    stderr: str = ""


def run_smoke(results: Path, visit: Callable[[Seen], None]) -> Seen:
    """Run the smoke configuration; `visit` is called beside it, as soon as Ray's dashboard is there."""
    seen = Seen(results / "smoke")
    argv = [sys.executable, "tune_main.py", "--config", "configs/smoke.toml", "--name", "smoke", "--results", str(results)]
    with (results / "out").open("w+") as out, (results / "err").open("w+") as err:
        process = subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, stdout=out, stderr=err)
        beside = threading.Thread(target=_look, args=(seen, process, results / "out", visit))
        beside.start()
        _watch(seen, process)
        beside.join()
    seen.stdout, seen.stderr = (results / "out").read_text(), (results / "err").read_text()
    assert process.returncode == 0, seen.stdout + seen.stderr
    return seen


def _look(seen: Seen, process: subprocess.Popen, out: Path, visit: Callable[[Seen], None]) -> None:
    while process.poll() is None and not (found := re.search(r"^Ray dashboard: (http\S+)", out.read_text(), re.MULTILINE)):
        time.sleep(0.2)
    if process.poll() is None:
        # As the line says, and as a user would.
        command = [Path(sys.executable).with_name("ray"), "get-auth-token"]
        seen.token = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout.split()[-1]
        seen.dashboard = found[1]
        visit(seen)


def _watch(seen: Seen, process: subprocess.Popen) -> None:
    """Wait for the run to end; note all the processes that descended from it, and what Ray exports of ours."""
    exporter = ""
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.descendants |= set(psutil.Process(process.pid).children(recursive=True))
        # Ray goes away before the run does.
        with contextlib.suppress(OSError):
            if seen.dashboard and not exporter:
                seen.job, exporter = _ask(seen, "/api/jobs/")[0], _exporter(seen)
            if exporter:
                _scrape(seen, exporter)
                answer = _ask(seen, "/api/v0/tasks?limit=1000")["data"]["result"]["result"]
                seen.tasks |= {(task["name"], task["state"]) for task in answer}
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
