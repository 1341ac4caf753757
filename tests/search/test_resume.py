"""What a run repeats when it goes on, and what it says when it ends before its time."""

import os
import signal

import pytest

from digit_search import pipeline
from digit_search.config.loading import load_settings
from digit_search.errors import DigitSearchError, SearchError, StorageError
from digit_search.run.events import EventLog
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder

SETTINGS = load_settings()


@pytest.fixture
def story(tmp_path, monkeypatch):
    """Runs what is left of a run with these phases behind it; its stages only leave their names."""
    folder, done = RunFolder(tmp_path), []

    def run(phases, fail=None, interrupts=None):
        for name in phases:
            EventLog(folder.events).phase(name, at=1.0)
        for name in ("_search", "_train_the_best", "write_report"):

            def stage(*given, name=name):
                done.append(name)
                if fail and name == fail[0]:
                    fail[1]()

            monkeypatch.setattr(pipeline, name, stage)
        with pipeline._resumable(folder):
            pipeline._search_retrain_report(SETTINGS, folder, None, None, interrupts or Interrupts(), lambda text: None)

    run.done, run.folder = done, folder
    return run


@pytest.mark.parametrize(
    ("phases", "stages"),
    [
        (["read"], ["_search", "_train_the_best", "write_report", "write_report"]),
        (["read", "search"], ["_search", "_train_the_best", "write_report", "write_report"]),
        (["read", "search", "retrain"], ["_train_the_best", "write_report", "write_report"]),
        (["read", "search", "retrain", "report"], ["write_report", "write_report"]),
    ],
)
def test_a_run_that_goes_on_repeats_no_stage_that_it_is_past(story, phases, stages):
    story(phases)
    assert story.done == stages


def raise_full():
    raise StorageError("report.html: cannot be written: No space left on device.")


@pytest.mark.parametrize("stage", ["_search", "_train_the_best", "write_report"])
def test_a_full_disk_in_any_stage_is_a_failed_run_that_says_how_to_go_on(story, stage):
    with pytest.raises(SearchError, match=r"No space left on device\.\nGo on with: python tune_main\.py resume"):
        story(["read"], (stage, raise_full))


def raise_interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["_search", "_train_the_best", "write_report"])
def test_a_ctrl_c_in_any_stage_says_how_to_go_on(story, stage):
    with pytest.raises(KeyboardInterrupt, match=r"go on with: python tune_main\.py resume"):
        story(["read"], (stage, raise_interrupt))


def test_tables_that_do_not_fit_on_the_full_disk_hide_not_what_happened(story, monkeypatch):
    monkeypatch.setattr(pipeline, "write_tables", lambda folder: raise_full())
    with pytest.raises(DigitSearchError, match="Go on with"):
        story(["read"], ("_search", raise_full))


def test_a_ctrl_c_that_a_library_swallowed_ends_the_run_before_the_next_stage(story):
    interrupts = Interrupts()

    def swallow():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            return

    with interrupts.caught(), pytest.raises(KeyboardInterrupt, match="go on with"):
        story(["read"], ("_search", swallow), interrupts)
    assert story.done == ["_search"]
