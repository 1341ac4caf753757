"""What ends a worker, and what ends the search, with a clock that the test sets."""

from types import SimpleNamespace

import pytest

from digit_search.cluster.watchdog import KILL_SECONDS, Watchdog, own_ray_processes
from digit_search.errors import RayLostError


@pytest.fixture
def made():
    """A watchdog over two trials that each have a worker."""
    state = SimpleNamespace(now=0.0, killed=[], workers={0: "worker 0", 1: "worker 1"})
    state.watchdog = Watchdog(10.0, {}, kill=state.killed.append, now=lambda: state.now)
    return state


def look(made, now):
    made.now = now
    made.watchdog.look(lambda: made.workers)


def test_a_worker_without_a_report_for_the_time_is_ended_once_and_the_other_left_alone(made):
    for now in range(0, 31, 2):
        made.watchdog.saw_report(1)
        look(made, now)
    assert made.killed == ["worker 0"]
    assert [made.watchdog.num_hung(trial) for trial in (0, 1)] == [1, 0]


def test_a_report_at_the_last_moment_keeps_the_worker(made):
    look(made, 0)
    look(made, 10)
    made.watchdog.saw_report(0)
    made.watchdog.saw_report(1)
    look(made, 20)
    assert made.killed == []


def test_the_time_starts_again_with_a_trials_next_worker(made):
    look(made, 0)
    look(made, 11)
    assert made.killed == ["worker 0", "worker 1"]
    made.workers = {0: None, 1: "worker 1"}
    look(made, 13)
    made.workers = {0: "new", 1: "new"}
    look(made, 30)
    look(made, 40)
    assert len(made.killed) == 2
    look(made, 42)
    assert made.killed[2:] == ["new", "new"]


def test_a_trial_that_waits_for_a_worker_does_not_hang(made):
    made.workers = {0: None, 1: None}
    for now in range(0, 100, 5):
        look(made, now)
    assert made.killed == []


def test_workers_are_looked_at_once_a_second(made):
    asked = []
    for now in (0.0, 0.5, 0.9, 1.0):
        made.now = now
        made.watchdog.look(lambda: asked.append(now) or {})  # noqa: B023
    assert asked == [0.0, 1.0]


def test_a_ray_that_does_not_end_a_worker_is_lost(made):
    look(made, 0)
    look(made, 11)
    look(made, 11 + KILL_SECONDS)
    with pytest.raises(RayLostError, match="does not end a worker that hangs, that of trial 0"):
        look(made, 12 + KILL_SECONDS)


def test_a_ray_that_died_ends_the_search():
    with pytest.raises(RayLostError, match="its process raylet died"):
        Watchdog(10.0, {2**22 + 1: "raylet"}).look(dict)


def test_without_a_ray_of_our_own_there_is_no_process_to_watch():
    assert own_ray_processes() == {}
