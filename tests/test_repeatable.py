"""The smoke configuration with one worker, twice: whatever a run gives, it gives again to the byte."""

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.runs import ROOT, Run


def run_smoke_alone(results: Path) -> dict[str, object]:
    """Run it and return all of it that no clock decides."""
    run = Run(results, results)
    argv = ["--config", "configs/smoke.toml", "--workers", "1", "--no-dashboard", "--name", run.folder.name, "--results", str(results)]
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "tune_main.py", *argv], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return run.products()


def test_two_runs_with_one_worker_and_one_seed_give_the_same_bytes(tmp_path):
    one, other = (run_smoke_alone(tmp_path / name) for name in ("one", "other"))
    assert len(one["trials.csv"]) == 3
    assert one == other
