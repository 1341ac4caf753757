"""Our own bug in the middle of a real search is reported as such."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN_WITH_A_BUG = """
from digit_search import cli
from digit_search.monitor.ray_metrics import RayMetrics


def on_event(self, event, state):
    raise RuntimeError("a bug that was put in for this test")


RayMetrics.on_event = on_event
cli.run_as_program()
"""


@pytest.mark.ray
def test_a_bug_in_an_observer_ends_the_run_with_one_line_and_its_traceback_in_the_log(tmp_path, tiny_data):
    argv = ["--data", tiny_data, "--results", tmp_path, "--name", "run", "--no-dashboard", "--samples", "2", "--max-epochs", "1"]
    program = [sys.executable, "-c", RUN_WITH_A_BUG, *map(str, argv)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a bug in digit_search ended the search: RuntimeError: a bug that was put in for this test (" in done.stderr
    assert f"resume {tmp_path / 'run'}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Ray was lost" not in done.stdout + done.stderr
    log = (tmp_path / "run" / "search.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "RuntimeError: a bug that was put in for this test" in log
