"""What is done when trials end, by a clock that the test moves."""

import pytest

from digit_search import searching
from digit_search.config import load_settings
from digit_search.history import EventLog
from digit_search.run_folder import RunFolder


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(searching.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("cost", "pause"), [(0.1, 5.0), (2.0, 18.0)])
def test_tables_are_written_every_five_seconds_and_take_a_tenth_of_the_time_at_most(tmp_path, monkeypatch, clock, cost, pause):
    written = []

    def write(folder):
        written.append(clock[0])
        clock[0] += cost

    monkeypatch.setattr(searching, "write_tables", write)
    folder = RunFolder(tmp_path)
    EventLog(folder.events).phase("search", at=0.0)
    after_trial = searching.after_trial_of(load_settings(), folder)
    after_trial(0)
    clock[0] += pause - 0.5
    after_trial(1)
    assert written == [1000.0]
    clock[0] += 1.0
    after_trial(2)
    assert len(written) == 2
