"""What is said at the end of a search; no Ray."""

import pytest

from digit_search.errors import SearchError
from digit_search.records import TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import TrialEnded, TrialStarted
from digit_search.run.state import RunState
from digit_search.search.stage import _check_some_succeeded


def add_trial(state, trial, status):
    state.apply(TrialStarted(trial=trial, params=TrialParams(), seed=0, origin=TrialOrigin.SUGGESTED))
    state.apply(TrialEnded(trial=trial, status=status, error="TrialError: diverged" if status is TrialStatus.FAILED else ""))


def test_a_search_of_which_every_trial_failed_fails_with_the_reasons():
    state = RunState()
    for trial in range(2):
        add_trial(state, trial, TrialStatus.FAILED)
    with pytest.raises(SearchError, match=r"all 2 trials failed:\n  TrialError: diverged"):
        _check_some_succeeded(state)
    add_trial(state, 2, TrialStatus.STOPPED)
    _check_some_succeeded(state)
