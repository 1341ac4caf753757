"""Runs that are killed and go on: with one worker on the CPU, nothing may differ from a run that was left alone."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = ["search.samples=4", "search.startup_trials=2", "search.asha.max_epochs=3", "search.asha.reduction_factor=2"]
SETTINGS += ["retrain.max_epochs=4", "resources.workers=1", "ray.dashboard=false", "search.space.batch_size.choices=[32,64]"]
TIMES = ("seconds", "node")


def start(*argv: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "tune_main.py", *map(str, argv)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def begin(results: Path, data: Path, name: str) -> subprocess.Popen:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return start("--data", data, "--results", results, "--name", name, *settings)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


def products(folder: Path) -> dict[str, object]:
    """All that must not depend on interruptions."""
    tables = {}
    for name in ("trials.csv", "epochs.csv", "rungs.csv"):
        with (folder / name).open(newline="") as file:
            tables[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    return tables | {name: (folder / name).read_bytes() for name in ("DigitRecognitionResNet18.pt", "solution.csv", "best.toml")}


def events(folder: Path) -> list[dict]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def wait_for(folder: Path, process: subprocess.Popen, is_there) -> None:
    """Until the run's events say so, or the run ends."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if any(is_there(event) for event in events(folder)):
            return
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before the moment to kill it"


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    # After kill -9 two of Ray's agents try to reach their dead cluster for about 80 s before they end.
    _, alive = psutil.wait_procs(processes, timeout=180)
    assert not alive, [process.cmdline() for process in alive]


def resumed(folder: Path) -> str:
    return finish(start("resume", folder))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory, tiny_data):
    """What a run gives that nobody interrupts. Its name is that of all runs here, because best.toml holds it."""
    results = tmp_path_factory.mktemp("untouched")
    finish(begin(results, tiny_data, "run"))
    return products(results / "run")


MOMENTS = {
    "in the first trial": lambda event: event["event"] == "epoch",
    "in the third trial": lambda event: event["event"] == "epoch" and event["trial"] == 2,
    "in retraining": lambda event: event["event"] == "phase" and event["name"] == "retrain",
}


@pytest.mark.parametrize("moment", ["in the first trial", "in retraining"])
def test_a_run_whose_driver_is_killed_goes_on_as_if_nothing_had_happened(tmp_path, tiny_data, untouched, moment):
    folder = tmp_path / "run"
    process = begin(tmp_path, tiny_data, "run")
    wait_for(folder, process, MOMENTS[moment])
    children = descendants(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    output = resumed(folder)
    assert "going on with" in output
    assert products(folder) == untouched
    assert_gone(children)


def test_ctrl_c_ends_in_order_and_says_how_to_go_on(tmp_path, tiny_data, untouched):
    folder = tmp_path / "run"
    process = begin(tmp_path, tiny_data, "run")
    wait_for(folder, process, MOMENTS["in the third trial"])
    children = descendants(process)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process, 130)
    assert f"resume {folder}" in output
    assert "Traceback" not in output
    assert_gone(children)
    assert (folder / "trials.csv").read_text().count("\n") == 4
    resumed(folder)
    assert products(folder) == untouched


def test_a_worker_that_dies_gives_its_trial_back_and_the_trial_goes_on(tmp_path, tiny_data, untouched):
    folder = tmp_path / "run"
    process = begin(tmp_path, tiny_data, "run")
    wait_for(folder, process, MOMENTS["in the first trial"])
    workers = [child for child in descendants(process) if "TrialWorker" in " ".join(child.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()
    finish(process)
    assert products(folder) == untouched


@pytest.fixture
def num_faults(request) -> int:
    return request.config.getoption("--faults")


def test_many_kills_at_random_moments(tmp_path, tiny_data, untouched, num_faults):
    """`pytest tests/faults --faults 50`: each run is killed at random until it gets through; the figures are printed."""
    if num_faults == 0:
        pytest.skip("runs with --faults N alone: each kill costs about a minute")
    chance = random.Random(num_faults)
    kills = runs = 0
    while kills < num_faults:
        runs += 1
        folder = tmp_path / str(runs) / "run"
        process = begin(folder.parent, tiny_data, "run")
        while True:
            children = kill_at_random(process, chance)
            if children is None:
                break
            kills += 1
            is_run = (folder / "config.toml").exists()
            process = start("resume", folder) if is_run else begin(folder.parent, tiny_data, f"run{kills}" if folder.exists() else "run")
        assert products(folder) == untouched
    print(f"{kills} kills in {runs} runs survived, 0 trials lost, 0 doubled, all byte-identical")  # noqa: T201


def kill_at_random(process: subprocess.Popen, chance: random.Random) -> list[psutil.Process] | None:
    """Kill the driver within its first 40 s; its descendants then, or None if it got through before."""
    try:
        process.communicate(timeout=chance.uniform(1, 40))
    except subprocess.TimeoutExpired:
        children = descendants(process)
        process.kill()
        process.communicate()
        return children
    assert process.returncode == 0
    return None
