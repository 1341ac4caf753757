"""On a real CUDA card, if there is one: the same training as on the CPU, without waiting for the device."""

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.doctor.devices import check_devices
from digit_search.records import TrialParams
from digit_search.search.worker import one_line
from digit_search.training.device import is_out_of_gpu_memory, plan_device
from digit_search.training.predict import predict_probabilities
from digit_search.training.setup import TrainingSetup, make_setup
from digit_search.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
PARAMS = TrialParams(lr=0.001, batch_size=64, shift_pixels=1.0)
PRECISIONS = ["float32", "bfloat16", "float16"]


@pytest.fixture(scope="module")
def table():
    torch.set_num_threads(1)
    return read_train(SAMPLE_FOLDER / "train.csv.gz").slice(0, 1400)


def make(table, device_type, precision="float32", **options) -> TrainingSetup:
    split = split_rows(label_view(table), validation_fraction=0.1, seed=0)
    return make_setup(table, split, plan_device(device_type, precision), ema_half_life_epochs=0.25, **options)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.005), ("bfloat16", 0.02), ("float16", 0.02)])
def test_an_epoch_equals_the_cpus_up_to_rounding(table, precision, tolerance):
    # With large steps, rounding would grow from step to step.
    params = replace(PARAMS, lr=1e-5)
    expected = Trainer(make(table, "cpu"), params, seed=0).advance()
    actual = Trainer(make(table, "cuda", precision), params, seed=0).advance()
    assert actual.train_loss == pytest.approx(expected.train_loss, rel=tolerance)
    assert actual.val_loss == pytest.approx(expected.val_loss, rel=tolerance)
    assert actual.images == expected.images


@pytest.mark.parametrize("precision", PRECISIONS)
def test_three_epochs_learn(table, precision):
    trainer = Trainer(make(table, "cuda", precision), replace(PARAMS, step_size=2, gamma=0.1), seed=0)
    assert [trainer.advance() for _ in range(3)][-1].val_accuracy > 0.8


def test_recorded_steps_equal_unrecorded_ones_up_to_rounding(table):
    params = replace(PARAMS, lr=1e-4, step_size=1, gamma=0.5)
    curves = []
    for replays in (False, True):
        setup = make(table, "cuda")
        trainer = Trainer(replace(setup, plan=replace(setup.plan, replays=replays)), params, seed=0)
        curves.append([trainer.advance().train_loss for _ in range(3)])
    assert curves[1] == pytest.approx(curves[0], rel=0.02)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_number_of_batches_does_not_change_how_often_the_host_waits_for_the_device(table, precision):
    setup = make(table, "cuda", precision)
    rows = setup.training_rows
    waits = []
    # The first twice, because the first training of a process makes the host wait once more.
    for count in (320, 320, 1280):
        setup = TrainingSetup(setup.digits, rows[:count], setup.validation_rows, setup.plan, ema_half_life_epochs=0.25)
        trainer = Trainer(setup, PARAMS, seed=0)
        trainer.advance()  # the optimizer's state is created in the first step
        waits.append(_waits(trainer))
    assert waits[1] == waits[2]


def _waits(trainer: Trainer) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.advance()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchronizing" in str(warning.message)]
    assert waits, "the end of the epoch reads its sums, so there is at least one"
    return len(waits)


@pytest.mark.parametrize("there", [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_training_resumes_from_a_checkpoint_of_another_device(table, there):
    params = replace(PARAMS, lr=1e-5)
    before, after = (Trainer(make(table, device_type), params, seed=0) for device_type in there)
    before.advance()
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    expected, actual = before.advance(), after.advance()
    assert actual.epoch == 2
    assert actual.train_loss == pytest.approx(expected.train_loss, rel=0.02)


def test_predictions_equal_the_cpus_up_to_the_rounding_of_bfloat16(table):
    on_card, on_cpu = make(table, "cuda", "bfloat16"), make(table, "cpu")
    trained, twin = Trainer(on_card, PARAMS, seed=0), Trainer(on_cpu, PARAMS, seed=0)
    trained.advance()
    twin.model.load_state_dict(trained.model.state_dict())
    actual, expected = (
        predict_probabilities(trainer.model, setup.digits, setup.validation_rows, setup.plan, 64)
        for trainer, setup in ((trained, on_card), (twin, on_cpu))
    )
    assert np.abs(actual - expected).max() < 0.1
    assert np.abs(actual - expected).mean() < 0.005


def test_running_out_of_memory_is_reported_with_a_remedy():
    with pytest.raises(Exception) as caught:  # noqa: PT011
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert is_out_of_gpu_memory(caught.value)
    assert "run fewer trials a GPU (--gpus-per-trial)" in one_line(caught.value)


def test_a_compiled_model_learns_the_same(table):
    params = replace(PARAMS, lr=1e-5)
    expected = Trainer(make(table, "cuda"), params, seed=0).advance()
    actual = Trainer(make(table, "cuda", compile=True), params, seed=0).advance()
    assert actual.train_loss == pytest.approx(expected.train_loss, rel=0.005)


def test_every_parameter_of_a_trial_trains(table):
    params = TrialParams(
        lr=0.001, batch_size=48, shift_pixels=2.0, weight_decay=1e-4, accumulation_steps=2, label_smoothing=0.1, stem="small"
    )
    assert math.isfinite(Trainer(make(table, "cuda", "auto"), params, seed=0).advance().val_loss)


def test_the_doctor_reports_no_problem_with_the_card():
    findings = [finding for finding in check_devices() if finding.name.startswith("CUDA")]
    assert len(findings) == torch.cuda.device_count()
    assert {finding.level for finding in findings} <= {"ok", "warning"}
