"""What ends a search, and what a lost Ray means for it; no cluster."""

import errno
import os

import pytest
from ray.exceptions import RayActorError
from ray.tune.error import TuneError

from digit_search.errors import InternalError, RayLostError, SearchError, StorageError
from digit_search.records import TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import TrialEnded, TrialStarted
from digit_search.search.failures import restart_lost_ray, why_search_ended, why_tune_ended


@pytest.fixture
def run(make_active_run):
    return make_active_run()


def finish(run, trial):
    run.record(TrialStarted(trial=trial, params=TrialParams(), seed=trial, origin=TrialOrigin.SUGGESTED))
    run.record(TrialEnded(trial=trial, status=TrialStatus.STOPPED))


def search_with(run, outcomes):
    """Search with attempts that end as given: with an error, well for None, or with a lost Ray after the end of the trial of a number."""
    left = list(outcomes)

    def attempt():
        outcome = left.pop(0)
        if isinstance(outcome, int):
            finish(run, outcome)
            outcome = RayLostError("no memory")
        if outcome:
            raise outcome

    restart_lost_ray(attempt, run)
    return run.said


def test_a_search_whose_ray_is_lost_continues_with_a_new_one(run):
    said = search_with(run, [RayLostError("its process raylet died"), None])
    assert said == ["Ray was lost (its process raylet died); it is started again, and the search continues from what was recorded"]


def test_a_search_whose_ray_is_lost_again_and_again_fails_with_the_reason(run):
    finish(run, 0)
    with pytest.raises(SearchError, match="Ray was lost 3 times: no memory"):
        search_with(run, [RayLostError("no memory")] * 3)


def test_a_search_that_finishes_trials_in_between_may_lose_its_ray_as_often_as_it_likes(run):
    assert len(search_with(run, [1, 2, 3, 4, 5, None])) == 5


def test_ray_is_not_started_again_for_a_user_who_ended_the_search(run):
    run.interrupts.pending = True
    with pytest.raises(KeyboardInterrupt):
        search_with(run, [RayLostError("its process raylet died"), None])
    assert run.said == []


def test_a_bug_is_not_tried_again(run):
    with pytest.raises(InternalError):
        search_with(run, [InternalError("a bug"), None])
    assert run.said == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("2 worker(s) were killed\nmuch more"), "2 worker(s) were killed"),
        (TuneError("Traceback (most recent call last):\n  File x\nKeyError: 'metrics'\n"), "KeyError: 'metrics'"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_what_tune_raises_by_itself_is_a_lost_ray(run, error, text):
    reason = why_tune_ended(error, run)
    assert (type(reason), str(reason)) == (RayLostError, text)


def disk_is_full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/study.journal")


def wrapped_by_tune(error):
    """Tune (2.60) turns what its parts raise into the text of a traceback; the error itself is its context."""
    wrapped = TuneError("Traceback (most recent call last):\n ...")
    wrapped.__context__ = error
    return wrapped


@pytest.mark.parametrize("why", [why_tune_ended, why_search_ended])
@pytest.mark.parametrize("error", [disk_is_full(), wrapped_by_tune(disk_is_full()), wrapped_by_tune(StorageError("/x/study.journal: no"))])
def test_a_full_disk_is_named_also_where_a_library_noticed_it(run, why, error):
    reason = why(error, run)
    assert isinstance(reason, StorageError)
    assert "/x/study.journal" in str(reason)


def test_an_error_of_rays_in_our_own_part_is_a_lost_ray(run):
    assert isinstance(why_search_ended(RayActorError(), run), RayLostError)


@pytest.mark.parametrize("bug", [KeyError("metrics"), RuntimeError("a bug"), TypeError("a bug"), ConnectionResetError("a bug")])
def test_any_other_error_in_our_own_part_is_a_bug_that_is_named_with_its_place(run, bug):
    try:
        raise bug
    except Exception as error:  # noqa: BLE001
        reason = why_search_ended(error, run)
    assert isinstance(reason, InternalError)
    assert f"a bug in digit_search ended the search: {type(bug).__name__}: " in str(reason)
    assert "(test_failures.py, line " in str(reason)
    assert f"{run.folder.log} has the traceback" in str(reason)
