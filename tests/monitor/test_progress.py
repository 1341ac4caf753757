"""What the terminal shows, and what a file gets instead."""

import io

import pytest

from digit_search.monitor.progress import STATUS_EVERY_SECONDS, SearchProgress
from digit_search.records import EpochMetrics, TrialStatus
from tests.monitor.observed import Observed


class Terminal(io.StringIO):
    def isatty(self):
        return True


def metrics(epoch, accuracy=0.5):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, accuracy, 0.01, 100, 2.0)


def progress_on(stream, num_samples, seconds=90.0):
    def make(state):
        return SearchProgress(state, lambda state: seconds if state.best else None, num_samples=num_samples, stream=stream)

    return Observed(make)


@pytest.fixture
def columns(monkeypatch):
    """Sets how wide the terminal is."""

    def set_columns(number):
        monkeypatch.setenv("COLUMNS", str(number))
        monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda stream: (number, 24))

    return set_columns


def last_line(stream):
    return stream.getvalue().rstrip("\n").split("\r")[-1]


def search_with_events(stream):
    live = progress_on(stream, 20)
    live.step({3, 13})
    live.reported(13, metrics(1, 0.975))
    live.reported(3, metrics(1, 0.9))
    live.ended(3, TrialStatus.STOPPED)
    live.ended(4, TrialStatus.FAILED, "no memory")
    return live


@pytest.mark.parametrize("number", [80, 120])
def test_the_bar_shows_the_time_left_the_best_and_the_running_trials_and_fits_the_terminal(clock, columns, number):
    columns(number)
    stream = Terminal()
    search_with_events(stream)
    line = last_line(stream)
    assert line.startswith("2/20 |")
    assert line.endswith("01:30 left, best 0.9750 (trial 13), 1 running, 1 stopped, 1 failed")
    assert len(line) == number
    assert ("elapsed" in line) == (number == 120)


def test_without_an_estimate_the_bar_says_that_the_time_left_is_unknown(clock, columns):
    columns(80)
    stream = Terminal()
    progress_on(stream, 20)
    assert "time left unknown, 0 running, 0 stopped" in last_line(stream)


def test_the_time_left_runs_down_between_two_reports(clock, columns):
    columns(80)
    stream = Terminal()
    live = search_with_events(stream)
    clock[0] += 30
    live.step({13})
    assert "01:00 left" in last_line(stream)
    clock[0] += 100
    live.step({13})
    assert "00:00 left" in last_line(stream)


def test_off_a_terminal_each_ended_trial_is_a_line_with_the_state_of_the_search(clock):
    stream = io.StringIO()
    search_with_events(stream)
    first, second = stream.getvalue().splitlines()
    assert first == (
        "trial   3 stopped after 1 epoch: validation accuracy 0.9000, loss 1.1000  "
        "[1/20, 01:30 left, best 0.9750 (trial 13), 1 running, 1 stopped]"
    )
    assert second.startswith("trial   4 failed: no memory  [2/20, ")
    assert second.endswith("1 failed]")


def test_an_ended_trial_is_shown_with_its_best_epoch_by_which_it_is_ranked(clock):
    stream = io.StringIO()
    live = progress_on(stream, 2)
    for epoch, accuracy in ((0.5, 0.7), (1, 0.9), (1.5, 0.9), (2, 0.8)):
        live.reported(1, metrics(epoch, accuracy))
    live.ended(1, TrialStatus.COMPLETED)
    assert stream.getvalue().startswith("trial   1 completed after 2 epochs: validation accuracy 0.9000, loss 1.1000 in epoch 1  [1/2")


def test_off_a_terminal_a_line_shows_the_state_when_no_trial_has_ended_for_long(clock):
    stream = io.StringIO()
    live = search_with_events(stream)
    clock[0] += STATUS_EVERY_SECONDS - 1
    live.step({13})
    assert len(stream.getvalue().splitlines()) == 2
    clock[0] += 1
    live.step({13})
    live.step({13})
    assert stream.getvalue().splitlines()[2:] == ["2/20 trials done, 00:30 left, best 0.9750 (trial 13), 1 running, 1 stopped, 1 failed"]


def test_after_the_last_trial_no_time_left_is_shown(clock):
    stream = io.StringIO()
    live = progress_on(stream, 1)
    live.reported(0, metrics(9, 0.9))
    live.ended(0, TrialStatus.COMPLETED)
    assert stream.getvalue().endswith("[1/1, best 0.9000 (trial 0), 0 running, 0 stopped]\n")
