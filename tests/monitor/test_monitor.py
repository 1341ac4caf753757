"""What other programs show of a run: Ray during the run, TensorBoard and optuna-dashboard afterwards."""

import csv
import json
import urllib.request
from dataclasses import fields
from pathlib import Path

import pytest

from digit_search.monitor.ray_metrics import GAUGES
from digit_search.records import EpochMetrics
from tests.programs import ask, program

pytestmark = pytest.mark.ray


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_job_has_the_runs_name_its_samples_and_where_to_find_the_best(smoke_run):
    metadata = smoke_run.job["metadata"]
    assert (metadata["job_name"], metadata["run"], metadata["samples"]) == ("digit_search smoke (3 trials)", "smoke", "3")
    assert "ray_digit_search_best_accuracy" in metadata["best_so_far"]


def test_each_trial_is_a_task_that_lasts_as_long_as_the_trial_and_each_new_best_is_a_task(smoke_run):
    epochs, lasted = rows(smoke_run.folder, "epochs.csv"), []
    for trial in rows(smoke_run.folder, "trials.csv"):
        name = f"trial_{int(trial['trial']):04d}: lr {float(trial['lr']):.4g}, gamma {float(trial['gamma']):.4g}, "
        (seconds,) = [seconds for task, seconds in smoke_run.tasks.items() if task.startswith(name)]
        lasted.append((seconds, sum(float(row["seconds"]) for row in epochs if row["trial"] == trial["trial"])))
    # Ray reports an end a second later, so the end of the last trial may be missing.
    assert any(seconds is not None for seconds, _ in lasted)
    assert all(seconds is None or seconds > of_epochs for seconds, of_epochs in lasted), lasted
    best = {task for task in smoke_run.tasks if task.startswith("best so far: ")}
    reached = {f"{float(row['ema_val_accuracy']):.4f}" for row in rows(smoke_run.folder, "epochs.csv")}
    assert best
    assert {task.split()[3] for task in best} <= reached


def test_every_metric_is_exported_with_the_run_and_agrees_with_the_tables(smoke_run):
    assert smoke_run.metrics.keys() == {f"ray_{name}" for name in GAUGES}
    assert {labels["run"] for samples in smoke_run.metrics.values() for labels, _ in samples} == {"smoke"}
    epochs = rows(smoke_run.folder, "epochs.csv")
    reached = {float(row["ema_val_accuracy"]) for row in epochs}
    assert {value for _, value in smoke_run.metrics["ray_digit_search_best_accuracy"]} <= reached
    of_trials = {(labels["trial"], value) for labels, value in smoke_run.metrics["ray_digit_search_accuracy"]}
    assert of_trials <= {(f"trial_{int(row['trial']):04d}", float(row["ema_val_accuracy"])) for row in epochs}
    running = [value for labels, value in smoke_run.metrics["ray_digit_search_trials"] if labels["status"] == "running"]
    assert 0 < max(running) <= 3
    assert all(value > 1 for _, value in smoke_run.metrics["ray_digit_search_images_per_second"])


def test_optuna_dashboard_reads_the_journal_with_intermediate_values_and_our_attributes(smoke_run):
    with program("optuna-dashboard", "--port", "{port}", smoke_run.folder / "study.journal") as address:
        (summary,) = ask(f"{address}/api/studies")["study_summaries"]
        study = ask(f"{address}/api/studies/{summary['study_id']}")
    assert (summary["study_name"], study["objective_names"]) == ("smoke", ["val_loss"])
    assert {attribute["key"] for attribute in study["user_attrs"]} >= {"value", "step"}
    for trial, row in zip(study["trials"], rows(smoke_run.folder, "trials.csv"), strict=True):
        attributes = {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}
        assert attributes["trial"] == row["trial"]
        assert float(attributes["val_accuracy"]) == pytest.approx(float(row["val_accuracy"]))
        assert [value["step"] for value in trial["intermediate_values"]] == list(range(1, int(row["epochs"]) + 1))


def test_tensorboard_reads_curves_and_hyperparameters_of_every_trial(smoke_run):
    argv = ("--logdir", smoke_run.folder / "tune", "--port", "{port}", "--load_fast=false")
    with program("tensorboard", *argv) as address:
        runs = ask(f"{address}/data/plugin/scalars/tags")
        epochs = rows(smoke_run.folder, "epochs.csv")
        for trial in ("0", "1", "2"):
            run = f"trial_{int(trial):04d}"
            assert runs[run].keys() == {f"ray/tune/{field.name}" for field in fields(EpochMetrics)}
            curve = ask(f"{address}/data/plugin/scalars/scalars?run={run}&tag=ray/tune/ema_val_accuracy")
            mine = [float(row["ema_val_accuracy"]) for row in epochs if row["trial"] == trial]
            assert [value for _, _, value in curve] == pytest.approx(mine, abs=1e-6)
            assert [step for _, step, _ in curve] == list(range(1, len(mine) + 1))
        body = json.dumps({"experimentName": ""}).encode()
        request = urllib.request.Request(f"{address}/data/plugin/hparams/experiment", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            names = {info["name"] for info in json.load(answer)["hparamInfos"]}
    assert {"lr", "gamma", "step_size", "batch_size"} <= names
