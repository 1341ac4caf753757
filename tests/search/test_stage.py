"""The search as a stage of a run; no cluster."""

import pytest

from digit_search.cluster.placement import WorkerPlan
from digit_search.errors import InternalError
from digit_search.search import stage
from digit_search.search.time_budget import TimeBudget


def test_a_bug_before_tune_starts_is_named_as_a_bug_too(make_active_run, monkeypatch):
    def fail(*given):
        raise KeyError("a bug")

    monkeypatch.setattr(stage, "SearchDriver", fail)
    with pytest.raises(InternalError, match="a bug in digit_search ended the search: KeyError: 'a bug'"):
        stage._search_with_tune(make_active_run(), None, None, TimeBudget("", 0.0), WorkerPlan(1, 1, 0.0), None)
