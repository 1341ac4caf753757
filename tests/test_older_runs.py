"""A run of an older version (0.2.0, before the run state, with a setting that is gone) can still be reported and resumed."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from digit_search import cli

ROOT = Path(__file__).parents[1]
OLD_RUN = Path(__file__).parent / "older_runs" / "finished"
TABLES = ("trials.csv", "epochs.csv", "rungs.csv", "best.toml")


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(OLD_RUN, tmp_path / "results" / "finished"))


def rows(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in ("seconds", "node")} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_its_tables_are_rebuilt_byte_for_byte(old_run):
    for name in TABLES:
        (old_run / name).unlink()
    assert cli.main(["report", str(old_run)]) == 0
    assert {name: (old_run / name).read_bytes() for name in TABLES} == {name: (OLD_RUN / name).read_bytes() for name in TABLES}
    page = (old_run / "report.html").read_text(encoding="utf-8")
    assert "Trial 3" in page
    assert "data:image/png;base64," in page


@pytest.mark.ray
def test_it_is_resumed_where_it_was_interrupted_with_the_suggestion_that_the_old_version_made(old_run, tiny_data):
    lines = (old_run / "events.jsonl").read_text().splitlines(keepends=True)
    # As if it had been killed when trial 2 had ended.
    (end_of_2,) = [index for index, line in enumerate(lines) if '"trial_ended"' in line and json.loads(line)["trial"] == 2]
    (old_run / "events.jsonl").write_text("".join(lines[: end_of_2 + 1]))
    config = old_run / "config.toml"
    config.write_text(config.read_text().replace('dir = "data/tiny"', f'dir = "{tiny_data}"'))
    for name in (*TABLES, "solution.csv", "validation.arrow"):
        (old_run / name).unlink()

    argv = [sys.executable, "tune_main.py", "resume", str(old_run), "--force"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = rows(OLD_RUN), rows(old_run)
    assert after[:3] == before[:3]
    suggested = ("lr", "gamma", "step_size", "batch_size", "seed")
    assert {name: after[3][name] for name in suggested} == {name: before[3][name] for name in suggested}
    assert len((old_run / "solution.csv").read_text().splitlines()) == 41
    assert (old_run / "DigitRecognitionResNet18.pt").exists()
