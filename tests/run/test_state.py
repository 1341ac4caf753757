"""A run's events: appended, torn by a crash, read back as records."""

import json
import os
import tracemalloc

import pytest

from digit_search.config.settings import MAX_REPORTS
from digit_search.errors import RunFolderError, StorageError
from digit_search.records import EpochMetrics, RetrainRecord, RungDecision, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import MAX_ERROR_LETTERS, MAX_EVENT_BYTES, EventLog
from digit_search.run.state import HistoryReader, load_state


def metrics(epoch, accuracy=0.5):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, accuracy, 0.01, 100, 2.0)


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "events.jsonl")


def begin(log, trial=0):
    log.trial_started(trial, TrialParams(lr=0.002), seed=7, origin=TrialOrigin.BASELINE, at=10.0)


def test_events_become_records(log, tmp_path):
    begin(log)
    log.epoch(0, metrics(1), "cpu", "host", at=11.0, decision=RungDecision(1, 0, 0.5, True))
    log.epoch(0, metrics(2, 0.6), "cpu", "host", at=12.0)
    log.trial_ended(0, TrialStatus.STOPPED, at=13.0)
    log.phase("retrain", at=14.0)
    log.note("cut short", at=15.0)
    log.note("cut short", at=16.0)
    log.retrained(RetrainRecord(0, TrialParams(lr=0.002), 7, (metrics(1),), 1, 0.5, 1.1, 90, 10, "cpu", 3.0, 28, 0.97), at=20.0)
    history = load_state(tmp_path / "events.jsonl")
    (record,) = history.trials
    assert (record.status, record.params.lr, record.seed, record.origin) == ("stopped", 0.002, 7, "baseline")
    assert (record.images, record.seconds, record.device, record.node) == (200, 4.0, "cpu", "host")
    assert (record.started_at, record.ended_at) == (10.0, 13.0)
    assert history.rungs == (RungDecision(1, 0, 0.5, True),)
    assert (history.phases, history.notes) == ({"retrain": 14.0}, ("cut short",))
    assert history.retraining.test_accuracy == 0.97
    assert history.retraining.epochs == (metrics(1),)


def test_a_line_that_a_crash_cut_short_is_left_out_and_the_next_event_starts_a_line_of_its_own(log, tmp_path):
    begin(log)
    path = tmp_path / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"event": "epoch", "at": 11.0, "tri')
    assert load_state(path).trials[0].epochs == ()
    EventLog(path).epoch(0, metrics(1), "cpu", "host", at=12.0)
    assert len(load_state(path).trials[0].epochs) == 1


def test_a_history_read_in_parts_is_the_whole_one_at_every_moment(tmp_path):
    whole, growing = tmp_path / "whole.jsonl", tmp_path / "events.jsonl"
    log = EventLog(whole)
    log.phase("search", at=0.0)
    for trial in range(3):
        log.trial_started(trial, TrialParams(), seed=trial, origin=TrialOrigin.SUGGESTED, at=1.0)
        for epoch in (1, 2, 1, 2):
            log.epoch(trial, metrics(epoch), "cpu", "here", at=2.0 + epoch, decision=RungDecision(1, trial, 0.5, passed=True))
        log.trial_ended(trial, TrialStatus.STOPPED, at=9.0)
    growing.touch()
    reader = HistoryReader(growing)
    for line in whole.read_bytes().splitlines(keepends=True):
        for part in (line[:-5], line[-5:]):
            with growing.open("ab") as file:
                file.write(part)
            assert reader.read() == load_state(growing)
    assert reader.read() == load_state(whole)


def test_an_epoch_that_was_trained_again_counts_once(log, tmp_path):
    begin(log)
    for epoch, accuracy in ((1, 0.1), (2, 0.2), (2, 0.3), (3, 0.4)):
        log.epoch(0, metrics(epoch, accuracy), "cpu", "host", at=11.0)
    record = load_state(tmp_path / "events.jsonl").trials[0]
    assert [(epoch.epoch, epoch.val_accuracy) for epoch in record.epochs] == [(1, 0.1), (2, 0.3), (3, 0.4)]


def test_trials_are_ordered_by_number_whatever_order_they_began_in(log, tmp_path):
    for trial in (2, 0, 1):
        begin(log, trial)
    assert [record.trial for record in load_state(tmp_path / "events.jsonl").trials] == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [
        "rubbish",
        "[]",
        json.dumps({"event": "epoch", "at": 1, "trial": 5, "metrics": {}, "device": "", "node": ""}),
        json.dumps({"event": "trial_started", "at": 1, "trial": 0, "params": {"lrr": 1}, "seed": 1, "origin": "baseline"}),
        json.dumps({"event": "trial_ended", "at": 1, "trial": 0, "status": "fine", "error": ""}),
    ],
)
def test_a_broken_event_is_refused_with_what_was_found(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(RunFolderError, match="expected"):
        load_state(path)


def test_missing_events_are_one_clear_error(tmp_path):
    with pytest.raises(RunFolderError, match=r"events\.jsonl: cannot be read"):
        load_state(tmp_path / "events.jsonl")


def test_a_number_that_json_cannot_hold_is_never_written(log):
    with pytest.raises(ValueError, match=r"JSON compliant"):
        log.epoch(0, metrics(1, float("nan")), "cpu", "host", at=1.0)


def test_an_event_that_the_disk_takes_in_part_leaves_the_events_as_they_were(log, tmp_path, monkeypatch):
    begin(log)
    before = (tmp_path / "events.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(StorageError, match=r"events\.jsonl: cannot be written: No space left on device"):
        log.note("much to tell", at=11.0)
    monkeypatch.undo()
    assert (tmp_path / "events.jsonl").read_bytes() == before
    log.note("again", at=12.0)
    assert load_state(tmp_path / "events.jsonl").notes == ("again",)


def test_of_a_file_of_any_size_only_the_end_is_read_to_drop_a_torn_line(tmp_path):
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 30)
        file.write(b"\n" + b'{"event": "ep')
    tracemalloc.start()
    EventLog(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size == (1 << 30) + 1
    assert peak < 3 * MAX_EVENT_BYTES


def test_a_torn_line_that_no_event_fills_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n" + b"x" * MAX_EVENT_BYTES)
    with pytest.raises(RunFolderError, match=f"expected a line of at most {MAX_EVENT_BYTES} bytes at its end, found a longer one"):
        EventLog(path)
    assert path.stat().st_size == 1 + MAX_EVENT_BYTES


def test_an_error_of_any_length_leaves_a_line_that_can_be_read(log, tmp_path):
    begin(log)
    log.trial_ended(0, TrialStatus.FAILED, at=11.0, error="x" * 2 * MAX_EVENT_BYTES)
    assert load_state(tmp_path / "events.jsonl").trials[0].error == "x" * MAX_ERROR_LETTERS


def test_the_longest_curve_that_settings_allow_can_be_read_again(log, tmp_path):
    number = 1.2345678901234567e-05
    longest = EpochMetrics(number, number, number, number, number, number, 10**9, number, number, number)
    log.retrained(RetrainRecord(0, TrialParams(lr=0.002), 7, (longest,) * MAX_REPORTS, 1, 0.5, 1.1, 90, 10, "cpu", 3.0, 28, 0.97), at=20.0)
    assert len(load_state(tmp_path / "events.jsonl").retraining.epochs) == MAX_REPORTS
