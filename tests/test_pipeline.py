"""The whole job in order: what is said on the way, and what a resumed run repeats."""

import os
import signal

import pytest

from digit_search import pipeline
from digit_search.config.loading import load_settings
from digit_search.errors import DigitSearchError, RunFolderError, SearchError, StorageError
from digit_search.pipeline import _say_best, retrain_run
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.active_run import ActiveRun
from digit_search.run.events import EpochReported, TrialEnded, TrialStarted
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState, load_state
from digit_search.search.stage import what_the_budget_allowed
from tests.event_log import MadeUpLog

SETTINGS = load_settings()


def add_trial(state, trial, accuracy, status=TrialStatus.COMPLETED, num_epochs=1):
    state.apply(TrialStarted(trial=trial, params=TrialParams(), seed=0, origin=TrialOrigin.SUGGESTED))
    for epoch in range(1, num_epochs + 1):
        metrics = EpochMetrics(epoch, 1.0, 0.5, 1 - accuracy, accuracy, 0.01, 100, 1.0)
        state.apply(EpochReported(trial=trial, metrics=metrics, device="cpu", node="host"))
    state.apply(TrialEnded(trial=trial, status=status))


@pytest.mark.parametrize(
    ("accuracies", "text"),
    [
        (
            [0.9, 0.99, 0.985, 0.9825],
            "best: trial 1, validation accuracy 0.9900 on 400 digits (95 % interval 0.975 to 0.996); tied with trials 2, 3",
        ),
        ([0.99, 0.9875, 0.5], "best: trial 0, validation accuracy 0.9900 on 400 digits (95 % interval 0.975 to 0.996); tied with trial 1"),
        ([0.5, 0.99], "best: trial 1, validation accuracy 0.9900 on 400 digits (95 % interval 0.975 to 0.996)"),
    ],
)
def test_the_best_trial_is_named_with_those_that_it_does_not_clearly_beat(accuracies, text):
    said, state = [], RunState()
    for trial, accuracy in enumerate(accuracies):
        add_trial(state, trial, accuracy)
    _say_best(state, "val_accuracy", 400, said.append)
    assert said == [text]


def test_a_search_that_ran_out_of_time_says_how_much_of_it_was_done():
    settings = load_settings(None, ["search.samples=6", "search.asha.enabled=false"], {"search.time_budget": "30m"})
    state = RunState()
    add_trial(state, 0, 0.9, num_epochs=7)
    add_trial(state, 1, 0.9, TrialStatus.STOPPED)
    add_trial(state, 2, 0.9, TrialStatus.INTERRUPTED, 2)
    assert what_the_budget_allowed(settings, state) == (
        "the time budget of 30m ended the search: 2 of 6 trials ended by themselves, 1 were cut short, 3 were never started; "
        "10 of about 42 epochs"
    )


def test_a_run_without_its_events_is_not_retrained(make_run):
    folder = make_run([TrialStatus.COMPLETED])
    folder.events.unlink()
    with pytest.raises(RunFolderError, match=r"events\.jsonl: expected the events of a run, found no file"):
        retrain_run(folder, 0, None, str)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Runs what is left of a run that has been through these phases. Its stages only leave their names."""
    folder, done = RunFolder(tmp_path), []

    def run(phases, fail=None, interrupts=None):
        for name in phases:
            MadeUpLog(folder.events).phase(name, at=1.0)
        for name in ("_search", "_train_the_best", "write_report"):

            def stage(*given, name=name):
                done.append(name)
                if fail and name == fail[0]:
                    fail[1]()

            monkeypatch.setattr(pipeline, name, stage)
        with pipeline._resumable(folder):
            active = ActiveRun(SETTINGS, folder, lambda text: None, interrupts or Interrupts())
            pipeline._search_retrain_report(active, None, None)

    run.done, run.folder = done, folder
    return run


@pytest.mark.parametrize(
    ("phases", "stages"),
    [
        (["read"], ["_search", "_train_the_best", "write_report"]),
        (["read", "search"], ["_search", "_train_the_best", "write_report"]),
        (["read", "search", "retrain"], ["_train_the_best", "write_report"]),
        (["read", "search", "retrain", "report"], ["write_report"]),
    ],
)
def test_a_resumed_run_repeats_no_stage_that_is_over_and_writes_its_report_once(job, phases, stages):
    job(phases)
    assert job.done == stages
    assert "done" in load_state(job.folder.events).phases


def raise_full():
    raise StorageError("report.html: cannot be written: No space left on device.")


STAGES = ["_search", "_train_the_best", "write_report"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_in_any_stage_is_a_failed_run_that_says_how_to_resume(job, stage):
    with pytest.raises(SearchError, match=r"No space left on device\.\nResume with: python tune_main\.py resume"):
        job(["read"], (stage, raise_full))
    assert "done" not in load_state(job.folder.events).phases


def raise_interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("stage", STAGES)
def test_a_ctrl_c_in_any_stage_says_how_to_resume(job, stage):
    with pytest.raises(KeyboardInterrupt, match=r"resume with: python tune_main\.py resume"):
        job(["read"], (stage, raise_interrupt))


def test_tables_that_do_not_fit_on_the_full_disk_do_not_hide_what_happened(job, monkeypatch):
    monkeypatch.setattr(pipeline, "write_tables", lambda folder, state: raise_full())
    with pytest.raises(DigitSearchError, match="Resume with"):
        job(["read"], ("_search", raise_full))


@pytest.mark.parametrize(("stop", "error"), [(raise_full, SearchError), (raise_interrupt, KeyboardInterrupt)])
def test_events_that_cannot_be_read_any_more_do_not_hide_what_happened(job, stop, error):
    def lose_events():
        job.folder.events.unlink()
        job.folder.events.mkdir()
        stop()

    with pytest.raises(error, match=r"(?i)resume with"):
        job(["read"], ("_search", lose_events))


def test_a_ctrl_c_that_a_library_swallowed_ends_the_run_before_the_next_stage(job):
    interrupts = Interrupts()

    def swallow():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            return

    with interrupts.caught(), pytest.raises(KeyboardInterrupt, match="resume with"):
        job(["read"], ("_search", swallow), interrupts)
    assert job.done == ["_search"]
