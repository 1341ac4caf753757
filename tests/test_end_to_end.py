"""One real run of the smoke configuration. Every file of it is read as its users read it."""

import csv
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from digit_search.config.loading import load_settings
from digit_search.data.load import load_digits
from tests.smoke_run import ENVIRONMENT, ROOT

pytestmark = pytest.mark.ray


def command(*argv: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "tune_main.py", *map(str, argv)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(smoke_run) -> Path:
    return smoke_run.folder


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_output_names_every_stage_and_has_no_control_characters_outside_a_terminal(smoke_run):
    for text in (
        "SAMPLE",
        "3,600 digits to train on",
        "Ray dashboard: http://127.0.0.1",
        "ray get-auth-token",
        "at a time",
        "retraining trial",
    ):
        assert text in smoke_run.stdout
    assert len(re.findall(r"^trial +\d+ (completed|stopped)", smoke_run.stderr, re.MULTILINE)) == 3
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", smoke_run.stdout + smoke_run.stderr)


def test_no_process_is_left_running(smoke_run):
    assert len(smoke_run.descendants) > 4
    _, alive = psutil.wait_procs(smoke_run.descendants, timeout=20)
    assert not alive, "processes are still running"


def test_the_folder_contains_exactly_the_files_in_the_readme(folder):
    table = (ROOT / "README.md").read_text().partition("| file | content |")[2].partition("\n\n")[0]
    documented = {
        name.rstrip("/") for line in table.splitlines() for name in re.findall(r"`([^`]+)`", line.partition("|")[2].partition("|")[0])
    }
    assert {path.name for path in folder.iterdir()} - {".lock"} == documented


def test_trials_csv_has_the_contracts_columns_and_the_baseline_first(folder):
    header = (folder / "trials.csv").read_text().splitlines()[0]
    assert header.startswith(
        "trial,status,lr,gamma,step_size,batch_size,epochs,best_epoch,val_accuracy,val_loss,images,seconds,device,node,seed,error"
    )
    rows = read_rows(folder / "trials.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert [rows[0][name] for name in ("lr", "gamma", "step_size", "batch_size")] == ["0.01", "0.05", "5", "32"]
    assert {row["status"] for row in rows} <= {"completed", "stopped"}
    assert all(row["device"] == "cpu" and row["node"] and not row["error"] for row in rows)


def test_epochs_csv_agrees_with_trials_csv(folder):
    epochs = read_rows(folder / "epochs.csv")
    for row in read_rows(folder / "trials.csv"):
        mine = [epoch for epoch in epochs if epoch["trial"] == row["trial"]]
        assert [epoch["epoch"] for epoch in mine] == [str(number) for number in range(1, int(row["epochs"]) + 1)]
        assert sum(int(epoch["images"]) for epoch in mine) == int(row["images"]) == 3600 * len(mine)
        best = max(mine, key=lambda epoch: float(epoch["ema_val_accuracy"]))
        assert float(row["val_accuracy"]) == float(best["ema_val_accuracy"])


def test_the_settings_and_the_versions_are_recorded(folder):
    settings = load_settings(folder / "config.toml")
    assert (settings.search.samples, settings.data.dir, settings.search.asha.max_epochs) == (3, "sample", 2)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert len(environment["data"]["train_fingerprint"]) == 64


def test_the_weights_load_into_torchvisions_model_and_predict_the_solution(folder):
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    model.load_state_dict(torch.load(folder / "DigitRecognitionResNet18.pt", weights_only=True))
    digits = load_digits("sample", max_csv_bytes=1 << 30)
    pixels = np.stack(digits.test["pixels"].to_numpy()).reshape(-1, 1, 28, 28)
    with torch.no_grad():
        outputs = model.eval()((torch.tensor(pixels) / 255 - 0.1310) / 0.3085)
    rows = read_rows(folder / "solution.csv")
    assert [row["ImageId"] for row in rows] == [str(number) for number in range(1, 1001)]
    predicted = torch.tensor([int(row["Label"]) for row in rows])
    # Rounding may change the label of a digit whose two best classes are nearly equal.
    assert (predicted == outputs.argmax(1)).float().mean() > 0.998
    assert (predicted.numpy() == digits.answers).mean() > 0.9


def test_best_toml_names_the_winning_trial(folder):
    best = tomllib.loads((folder / "best.toml").read_text())
    rows = read_rows(folder / "trials.csv")
    assert float(rows[best["source"]["trial"]]["val_accuracy"]) == max(float(row["val_accuracy"]) for row in rows)
    assert best["params"]["lr"] == float(rows[best["source"]["trial"]]["lr"])


def test_optuna_loads_the_study_and_every_trial_in_it_has_ended(folder):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal")))
    study = optuna.load_study(study_name="smoke", storage=storage)
    states = {"completed": optuna.trial.TrialState.COMPLETE, "stopped": optuna.trial.TrialState.PRUNED}
    rows = read_rows(folder / "trials.csv")
    assert [trial.state for trial in study.trials] == [states[row["status"]] for row in rows]
    assert [len(trial.intermediate_values) for trial in study.trials] == [int(row["epochs"]) for row in rows]


def test_the_report_is_one_page_with_its_pictures_and_names_the_sample(folder):
    page = (folder / "report.html").read_text()
    assert "embedded sample" in page
    assert page.count("<svg") + page.count("data:image") > 10
    assert "http://" not in re.sub(r"http://www\.w3\.org/[^\"]*", "", page)
    assert "Accuracy" in page or "accuracy" in page
    assert (folder / "report.md").read_text().startswith("# ")


def test_tensorboard_files_are_kept_and_checkpoints_are_deleted(folder):
    assert len(list((folder / "tune").rglob("events.out.tfevents.*"))) == 3
    assert not list(folder.rglob("checkpoint_*"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60e6


def test_a_finished_run_is_not_changed_and_its_name_cannot_be_used_again(folder):
    before = (folder / "trials.csv").read_bytes()
    done = command("resume", "smoke", "--results", folder.parent)
    assert (done.returncode, "is finished" in done.stdout) == (0, True)
    done = command("--config", "configs/smoke.toml", "--name", "smoke", "--results", folder.parent)
    assert (done.returncode, "already" in done.stderr) == (2, True)
    assert (folder / "trials.csv").read_bytes() == before


def test_a_trial_can_be_retrained_without_ray_and_gives_the_same_curve(folder):
    # The fault tests show that small batches repeat, so this takes a large one.
    trial = max(read_rows(folder / "trials.csv"), key=lambda row: (int(row["batch_size"]), -int(row["epochs"])))
    done = command("retrain", "smoke", "--trial", trial["trial"], "--max-epochs", trial["epochs"], "--results", folder.parent)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    repeated = [event for event in events if event["event"] == "retrained"][-1]["epochs"]
    original = [event["metrics"] for event in events if event["event"] == "epoch" and event["trial"] == int(trial["trial"])]
    assert [metrics | {"seconds": 0} for metrics in repeated] == [metrics | {"seconds": 0} for metrics in original]
    assert not (folder / "retraining").exists(), "the checkpoints of the retraining were not deleted"
