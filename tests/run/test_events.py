"""The file of a run's events: appended, cut short by a crash, read back."""

import json
import os
import tracemalloc

import pytest

from digit_search.config.settings import MAX_REPORTS
from digit_search.errors import RunFolderError, StorageError
from digit_search.records import EpochMetrics, RetrainRecord, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import MAX_ERROR_CHARACTERS, MAX_EVENT_BYTES, EpochReported, EventLog, TrialStarted, read_events
from digit_search.run.state import load_state
from tests.event_log import MadeUpLog


def metrics(epoch, accuracy=0.5):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, accuracy, 0.01, 100, 2.0)


@pytest.fixture
def log(tmp_path):
    return MadeUpLog(tmp_path / "events.jsonl")


def begin(log, trial=0):
    log.trial_started(trial, TrialParams(lr=0.002), seed=7, origin=TrialOrigin.BASELINE, at=10.0)


def test_an_event_that_is_read_back_is_the_one_that_was_written(log, tmp_path):
    written = TrialStarted(trial=3, params=TrialParams(lr=1), seed=7, origin=TrialOrigin.POINT)
    log.append(written)
    (read,) = read_events(tmp_path / "events.jsonl")
    assert read == written
    assert isinstance(written.params.lr, float)


def test_half_of_a_surrogate_pair_becomes_a_question_mark(log, tmp_path):
    begin(log)
    log.trial_ended(0, TrialStatus.FAILED, at=11.0, error="x\udc80 \U0001f600")
    path = tmp_path / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event": "note", "at": 12.0, "text": "y\\udc80"}\n')
    state = load_state(path)
    assert (state.trials[0].error, list(state.notes)) == ("x? \U0001f600", ["y?"])


def test_a_line_that_a_crash_cut_short_is_ignored_and_the_next_event_starts_a_line(log, tmp_path):
    begin(log)
    path = tmp_path / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"event": "epoch", "at": 11.0, "tri')
    assert len(list(read_events(path))) == 1
    MadeUpLog(path).epoch(0, metrics(1), "cpu", "host", at=12.0)
    assert len(load_state(path).trials[0].epochs) == 1


@pytest.mark.parametrize(
    "line",
    [
        "rubbish",
        "[]",
        json.dumps({"event": "launched", "at": 1}),
        json.dumps({"event": "note", "at": 1, "text": "x", "more": 1}),
        json.dumps({"event": "epoch", "at": 1, "trial": 5, "metrics": {}, "device": "", "node": ""}),
        json.dumps({"event": "trial_started", "at": 1, "trial": 0, "params": {"lrr": 1}, "seed": 1, "origin": "baseline"}),
        json.dumps({"event": "trial_started", "at": 1, "trial": 0, "params": {"batch_size": 1}, "seed": 1, "origin": "baseline"}),
        json.dumps({"event": "trial_ended", "at": 1, "trial": 0, "status": "fine", "error": ""}),
        json.dumps({"event": "trial_ended", "at": 1e300, "trial": 0, "status": "failed", "error": ""}),
    ],
)
def test_a_broken_event_is_refused_with_its_line_and_what_was_found(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_text(f'{{"event": "note", "at": 1, "text": "fine"}}\n{line}\n')
    with pytest.raises(RunFolderError, match=r"events\.jsonl: line 2: expected an event of a run, found b'"):
        load_state(path)


def test_an_event_of_a_trial_that_never_started_is_refused(log, tmp_path):
    log.epoch(5, metrics(1), "cpu", "host", at=1.0)
    with pytest.raises(RunFolderError, match=r"expected a trial_started event of trial 5 first, found its epoch event"):
        load_state(tmp_path / "events.jsonl")


def test_missing_events_are_one_clear_error(tmp_path):
    with pytest.raises(RunFolderError, match=r"events\.jsonl: cannot be read"):
        load_state(tmp_path / "events.jsonl")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.5, -0.1])
def test_a_number_that_is_no_accuracy_makes_no_event(wrong):
    with pytest.raises(ValueError, match="val_accuracy"):
        EpochReported(trial=0, metrics=metrics(1, wrong), device="cpu", node="host")


def test_an_event_that_the_disk_takes_in_part_leaves_the_events_as_they_were(log, tmp_path, monkeypatch):
    begin(log)
    before = (tmp_path / "events.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(StorageError, match=r"events\.jsonl: cannot be written: No space left on device"):
        log.note("a long text", at=11.0)
    monkeypatch.undo()
    assert (tmp_path / "events.jsonl").read_bytes() == before
    log.note("again", at=12.0)
    assert list(load_state(tmp_path / "events.jsonl").notes) == ["again"]


def test_only_the_end_of_a_file_is_read_to_cut_off_an_incomplete_line_of_a_file_of_any_size(tmp_path):
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


def test_an_incomplete_line_that_is_longer_than_any_event_is_refused_and_kept(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n" + b"x" * MAX_EVENT_BYTES)
    with pytest.raises(RunFolderError, match=f"expected a line of at most {MAX_EVENT_BYTES} bytes at its end, found a longer one"):
        EventLog(path)
    assert path.stat().st_size == 1 + MAX_EVENT_BYTES


def test_an_error_of_any_length_leaves_a_line_that_can_be_read(log, tmp_path):
    begin(log)
    log.trial_ended(0, TrialStatus.FAILED, at=11.0, error="x" * 2 * MAX_EVENT_BYTES)
    assert load_state(tmp_path / "events.jsonl").trials[0].error == "x" * MAX_ERROR_CHARACTERS


def test_the_longest_curve_that_settings_allow_can_be_read_again(log, tmp_path):
    number = 1.2345678901234567e-05
    longest = EpochMetrics(number, number, number, number, number, number, 10**9, number, number, number)
    log.retrained(RetrainRecord(0, TrialParams(lr=0.002), 7, (longest,) * MAX_REPORTS, 1, 0.5, 1.1, 90, 10, "cpu", 3.0, 28, 0.97), at=20.0)
    retraining = load_state(tmp_path / "events.jsonl").retraining
    assert retraining is not None
    assert len(retraining.epochs) == MAX_REPORTS
