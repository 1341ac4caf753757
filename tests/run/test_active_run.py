"""A run that this process works on: written down first, then known, then shown."""

import pytest

from digit_search.config.loading import load_settings
from digit_search.errors import StorageError
from digit_search.records import TrialOrigin, TrialParams, TrialStatus
from digit_search.run.active_run import ActiveRun, Observer
from digit_search.run.events import TrialEnded, TrialStarted
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state


class Witness(Observer):
    def __init__(self):
        self.seen = []

    def on_event(self, event, state):
        self.seen.append((event.event, state.count(TrialStatus.FAILED), set(state.running)))

    def on_step(self, state):
        self.seen.append(("step", set(state.running)))

    def close(self):
        self.seen.append("closed")


@pytest.fixture
def run(tmp_path):
    return ActiveRun(load_settings(), RunFolder(tmp_path), print, Interrupts())


def start(run, trial):
    run.record(TrialStarted(trial=trial, params=TrialParams(), seed=0, origin=TrialOrigin.BASELINE))


def test_every_observer_sees_each_event_with_the_state_that_includes_it(run):
    witnesses = [Witness(), Witness()]
    with run.observed_by(witnesses):
        start(run, 0)
        run.step({0})
        run.record(TrialEnded(trial=0, status=TrialStatus.FAILED, error="no memory"))
    run.start_phase("retrain")
    expected = [("trial_started", 0, set()), ("step", {0}), ("trial_ended", 1, set()), "closed"]
    assert [witness.seen for witness in witnesses] == [expected, expected]


def test_an_observer_that_cannot_close_does_not_keep_the_others_open(run):
    class Stuck(Witness):
        def close(self):
            raise OSError("No space left on device")

    witness = Witness()
    with pytest.raises(OSError, match="No space left"), run.observed_by([Stuck(), witness, Stuck()]):
        start(run, 0)
    assert witness.seen[-1] == "closed"


def test_a_bug_in_an_observer_is_raised_after_the_event_is_on_the_disk(run, tmp_path):
    class Broken(Observer):
        def on_event(self, event, state):
            raise KeyError("a bug")

    with pytest.raises(KeyError), run.observed_by([Broken()]):
        start(run, 0)
    assert run.state.trials == load_state(tmp_path / "events.jsonl").trials != ()


def test_a_later_process_finds_the_state_that_this_one_left(run, tmp_path):
    start(run, 0)
    again = ActiveRun(run.settings, RunFolder(tmp_path), print, Interrupts())
    assert again.state.trials == run.state.trials == load_state(tmp_path / "events.jsonl").trials


def test_what_the_disk_does_not_take_has_not_happened(run, tmp_path, monkeypatch):
    witness = Witness()
    (tmp_path / "events.jsonl").mkdir()
    with run.observed_by([witness]), pytest.raises(StorageError):
        start(run, 0)
    assert run.state.trials == ()
    assert witness.seen == ["closed"]
