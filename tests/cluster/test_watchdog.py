"""What ends a worker, and what ends the search, with hand-made trials and a clock that is told the time."""

from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from digit_search.cluster.watchdog import KILL_SECONDS, EndSearch, LiveTrials, Watch, own_ray_processes
from digit_search.errors import RayLostError, StorageError


@pytest.fixture
def made():
    """A watch over two trials that each have a worker."""
    state = SimpleNamespace(now=0.0, killed=[])
    state.trials = [
        SimpleNamespace(trial_id=str(number), status=Trial.RUNNING, temporary_state=SimpleNamespace(ray_actor=f"worker {number}"))
        for number in range(2)
    ]
    state.watch = Watch(10.0, kill=state.killed.append, now=lambda: state.now)
    return state


def step(made, now):
    made.now = now
    made.watch.on_step_end(0, made.trials)


def report(made, number, result=None):
    made.watch.on_trial_result(0, made.trials, made.trials[number], result or {"metrics": {}})


def test_a_worker_without_a_report_for_the_time_is_ended_once_and_the_other_left_alone(made):
    for now in range(0, 31, 2):
        report(made, 1)
        step(made, now)
    assert made.killed == ["worker 0"]
    assert [made.watch.num_hung(trial) for trial in made.trials] == [1, 0]


def test_a_report_at_the_last_moment_keeps_the_worker(made):
    step(made, 0)
    step(made, 10)
    report(made, 0)
    report(made, 1)
    step(made, 20)
    assert made.killed == []


def test_the_time_begins_anew_with_a_trials_next_worker(made):
    step(made, 0)
    step(made, 11)
    assert made.killed == ["worker 0", "worker 1"]
    made.trials[0].temporary_state.ray_actor = None
    step(made, 13)
    made.trials[0].temporary_state.ray_actor = made.trials[1].temporary_state.ray_actor = "new"
    step(made, 30)
    step(made, 40)
    assert len(made.killed) == 2
    step(made, 42)
    assert made.killed[2:] == ["new", "new"]


def test_a_trial_that_waits_for_a_worker_hangs_not(made):
    made.trials[0].temporary_state.ray_actor = made.trials[1].temporary_state.ray_actor = None
    for now in range(0, 100, 5):
        step(made, now)
    assert made.killed == []


def test_a_ray_that_does_not_end_a_worker_is_lost(made):
    step(made, 0)
    step(made, 11)
    step(made, 11 + KILL_SECONDS)
    with pytest.raises(EndSearch) as caught:
        step(made, 12 + KILL_SECONDS)
    assert isinstance(caught.value.reason, RayLostError)


def test_a_checkpoint_that_did_not_fit_ends_the_search_with_its_reason(made):
    report(made, 0, {"unsaved": "/x/checkpoint_0.pt: cannot be written: No space left on device."})
    with pytest.raises(EndSearch) as caught:
        step(made, 0)
    assert isinstance(caught.value.reason, StorageError)
    assert "No space left" in str(caught.value.reason)


def test_a_ray_that_died_ends_the_search(made):
    made.watch = Watch(10.0, {2**22 + 1: "raylet"})
    with pytest.raises(EndSearch) as caught:
        step(made, 0)
    assert str(caught.value.reason) == "its process raylet died"


def test_without_a_ray_of_our_own_there_is_none_to_watch():
    assert own_ray_processes() == {}


def test_a_step_looks_at_live_and_new_trials_alone():
    """Else the cost of a search would grow with the square of its trials."""
    looked_at = []

    class Watched:
        def __init__(self, name, status):
            self.name, self._status = name, status

        @property
        def status(self):
            looked_at.append(self.name)
            return self._status

    trials = [Watched("ended", Trial.TERMINATED), Watched("failed", Trial.ERROR), Watched("runs", Trial.RUNNING)]
    live = LiveTrials()
    assert [trial.name for trial in live.of(trials)] == ["runs"]
    looked_at.clear()
    trials.append(Watched("waits", Trial.PENDING))
    assert [trial.name for trial in live.of(trials)] == ["runs", "waits"]
    assert looked_at == ["runs", "waits"]
