"""What is done when trials end, by a clock that the test moves."""

import pytest

from digit_search.config.loading import load_settings
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.report.build import write_tables
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder
from digit_search.search import stage


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(stage.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("cost", "pause"), [(0.1, 5.0), (2.0, 18.0)])
def test_tables_are_written_every_five_seconds_and_take_a_tenth_of_the_time_at_most(tmp_path, monkeypatch, clock, cost, pause):
    written = []

    def write(folder, history, rank_by):
        written.append(clock[0])
        clock[0] += cost

    monkeypatch.setattr(stage, "write_tables_of", write)
    folder = RunFolder(tmp_path)
    EventLog(folder.events).phase("search", at=0.0)
    after_trial = stage.after_trial_of(load_settings(), folder)
    after_trial(0)
    clock[0] += pause - 0.5
    after_trial(1)
    assert written == [1000.0]
    clock[0] += 1.0
    after_trial(2)
    assert len(written) == 2


def test_the_tables_hold_what_came_since_the_last_ones(tmp_path, clock):
    folder = RunFolder(tmp_path)
    events = EventLog(folder.events)
    events.phase("search", at=0.0)
    after_trial = stage.after_trial_of(load_settings(), folder)
    for trial in range(3):
        events.trial_started(trial, TrialParams(), seed=trial, origin=TrialOrigin.SUGGESTED, at=1.0)
        events.epoch(trial, EpochMetrics(1.0, 0.5, 0.5, 0.5, 0.5, 0.01, 100, 1.0), "cpu", "here", at=2.0)
        events.trial_ended(trial, TrialStatus.STOPPED, at=3.0)
        after_trial(trial)
        clock[0] += 10.0
        told = folder.trials.read_bytes(), folder.epochs.read_bytes(), folder.rungs.read_bytes()
        write_tables(folder)
        assert told == (folder.trials.read_bytes(), folder.epochs.read_bytes(), folder.rungs.read_bytes())
        assert len(told[0].splitlines()) == trial + 2
