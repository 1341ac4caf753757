"""What a worker reports of a trial that ends badly; no cluster."""

import weakref
from types import SimpleNamespace

import pytest
import torch

from digit_search.config.settings import TrainingSettings
from digit_search.data.load import load_digits
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.errors import StorageError, TrialError
from digit_search.records import TrialParams
from digit_search.search import worker
from digit_search.search.study import Objective
from digit_search.search.trainable import TrialSetup


@pytest.fixture
def run_failing(tmp_path, tiny_data, monkeypatch):
    """Run a trial whose training raises the given error; return its reports and its folder."""
    table = load_digits(str(tiny_data), max_csv_bytes=1 << 30).train
    split = split_rows(label_view(table), validation_fraction=0.1, seed=0, file="train.csv")
    setup = TrialSetup(split, str(tmp_path), 2, TrainingSettings(), 1, Objective("val_loss", 1, 2))

    def run(error, seen=lambda trainer: None, reports=None):
        def fit(trainer, **named):
            seen(trainer)
            raise error

        reports = [] if reports is None else reports
        monkeypatch.setattr(worker, "fit", fit)
        monkeypatch.setattr(worker, "tune", SimpleNamespace(report=reports.append))
        context = SimpleNamespace(get_node_id=lambda: "n1")
        monkeypatch.setattr(worker, "ray", SimpleNamespace(get_runtime_context=lambda: context, get_gpu_ids=list))
        config = {"trial": 3, "seed": 7} | {name: getattr(TrialParams(), name) for name in worker.PARAM_NAMES}
        worker.run_trial(config, table, setup)
        return reports, tmp_path / "trial_0003"

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TrialError("epoch 1: the training loss is nan"), "epoch 1: the training loss is nan"),
        (RuntimeError("shapes\n  differ"), "RuntimeError: shapes differ"),
        (KeyError("weights"), "KeyError: 'weights'"),
        (AssertionError(), "AssertionError: AssertionError"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "OutOfMemoryError: out of GPU memory; run fewer trials a GPU (--gpus-per-trial) or smaller batches "
            "(CUDA out of memory. Tried to allocate 2.00 GiB)",
        ),
        (
            RuntimeError("MPS backend out of memory"),
            "RuntimeError: out of GPU memory; run fewer trials a GPU (--gpus-per-trial) or smaller batches (MPS backend out of memory)",
        ),
    ],
)
@pytest.mark.slow
def test_a_trial_that_raises_has_failed_at_once_with_one_line_and_its_traceback_in_its_log(run_failing, error, line):
    reports, folder = run_failing(error)
    assert reports == [{"failed": line}]
    assert "Traceback (most recent call last)" in (folder / "error.log").read_text()


def test_a_checkpoint_that_the_disk_does_not_take_is_not_the_trials_fault(run_failing):
    reports, folder = run_failing(StorageError("/x/checkpoint_0.pt: cannot be written: No space left on device."))
    assert reports == [{"unsaved": "/x/checkpoint_0.pt: cannot be written: No space left on device."}]
    assert not (folder / "error.log").exists()


def test_a_worker_that_is_ended_is_no_trial_that_raised(run_failing):
    with pytest.raises(SystemExit):
        run_failing(SystemExit(1))


def test_a_trial_that_ran_out_of_memory_holds_none_while_its_failure_is_reported(run_failing):
    models, held = [], []

    class Reports(list):
        def append(self, report):
            held.append([model() for model in models if model() is not None])

    def run_out(trainer):
        models.append(weakref.ref(trainer.model))
        # Made here, so that nobody outside holds its traceback, and with that the trainer.
        raise torch.OutOfMemoryError("CUDA out of memory")

    run_failing(None, run_out, Reports())
    assert (len(models), held) == (1, [[]])


@pytest.mark.parametrize(
    ("gpu_ids", "uses_mps", "visible", "expected"),
    [
        ([], False, (True, False), "cpu"),
        ([], False, (False, True), "cpu"),
        ([2], False, (True, False), "cuda"),
        (["0"], False, (False, True), "mps"),
        ([], True, (False, True), "mps"),
        ([0], False, (False, False), "cpu"),
    ],
)
def test_a_worker_computes_on_what_ray_gave_it_not_on_what_it_sees(monkeypatch, gpu_ids, uses_mps, visible, expected):
    monkeypatch.setattr(worker, "visible_gpus", lambda: visible)
    monkeypatch.setattr(worker, "ray", SimpleNamespace(get_gpu_ids=lambda: gpu_ids))
    assert worker.assigned_device_type(uses_mps) == expected
