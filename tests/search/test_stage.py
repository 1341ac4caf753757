"""The search as a stage of a run; no cluster."""

import pytest

from digit_search.cluster.placement import WorkerPlan
from digit_search.errors import InternalError
from digit_search.records import TrialOrigin, TrialParams
from digit_search.run.events import TrialStarted
from digit_search.search import stage
from digit_search.search.time_budget import TimeBudget


def test_a_time_budget_that_is_spent_starts_no_ray_and_leaves_no_trial_running(make_active_run):
    run = make_active_run()
    run.record(TrialStarted(trial=0, params=TrialParams(), seed=0, origin=TrialOrigin.BASELINE))
    stage._search_on_ray(run, None, None, TimeBudget("1s", float("-inf")))
    assert run.state.trial(0).status == "interrupted"


def test_a_bug_before_tune_starts_is_named_as_a_bug_too(make_active_run, monkeypatch):
    def fail(*given):
        raise KeyError("a bug")

    monkeypatch.setattr(stage, "SearchDriver", fail)
    with pytest.raises(InternalError, match="a bug in digit_search ended the search: KeyError: 'a bug'"):
        stage.search_with_tune(make_active_run(), None, None, TimeBudget("", 0.0), WorkerPlan(1, 1, 0.0))
