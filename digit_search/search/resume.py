"""What is left of a search: which trials are still to run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from digit_search.config.settings import RunSettings, baseline_params
from digit_search.records import FINISHED, TrialOrigin, TrialStatus
from digit_search.run.active_run import ActiveRun
from digit_search.run.events import TrialEnded
from digit_search.run.state import RunState
from digit_search.search.suggest import PlannedTrial, SearchPlan


def _given_trials(settings: RunSettings) -> list[PlannedTrial]:
    """The baseline and the configuration's points, which come first."""
    baseline = baseline_params(settings.training)
    given = [PlannedTrial(baseline, TrialOrigin.BASELINE)] if settings.search.baseline else []
    points: Sequence[Mapping[str, Any]] = settings.search.points
    return given + [PlannedTrial(replace(baseline, **point), TrialOrigin.POINT) for point in points]


def search_plan(settings: RunSettings, state: RunState) -> SearchPlan:
    """What is still to be tried: first what an earlier process started and did not finish, then what was never started."""
    search = settings.search
    finished = {record.trial for record in state.trials if record.status in FINISHED}
    started = {record.trial: PlannedTrial(record.params, record.origin) for record in state.trials if record.trial not in finished}
    left = [number for number in range(search.samples) if number not in finished]
    return SearchPlan(
        space=search.space,
        fixed=baseline_params(settings.training),
        planned=dict(enumerate(_given_trials(settings))) | started,
        numbers=sorted(left, key=lambda number: (number not in started, number)),
        seed=settings.seed,
        startup_trials=search.startup_trials,
        num_warm=len(state.warm),
    )


def end_decided_trials(run: ActiveRun) -> None:
    """Record the end of trials whose last report decided it, where a crash came before that."""
    stopped = {decision.trial for decision in run.state.rungs if not decision.passed}
    for record in run.state.trials:
        if record.status in FINISHED:
            continue
        if record.epochs and record.epochs[-1].epoch >= run.settings.search.asha.max_epochs:
            run.record(TrialEnded(trial=record.trial, status=TrialStatus.COMPLETED))
        elif record.trial in stopped:
            run.record(TrialEnded(trial=record.trial, status=TrialStatus.STOPPED))
