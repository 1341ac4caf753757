"""What is left of a search that an earlier process began: which trials are still to run, and what Optuna's study holds of the others."""

import time
from collections.abc import Sequence
from dataclasses import replace

import optuna

from digit_search.config.settings import RunSettings, baseline_params
from digit_search.records import TrialOrigin, TrialRecord, TrialStatus
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState
from digit_search.search.searcher import PlannedTrial, SearchPlan
from digit_search.search.study import Objective, add_finished, describe_study, open_study

FINISHED = frozenset({TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED})


def planned_trials(settings: RunSettings, begun: Sequence[TrialRecord] = ()) -> dict[int, PlannedTrial]:
    """The baseline, the configuration's points, and the trials that an earlier process began, by number."""
    baseline = baseline_params(settings.training)
    given = [PlannedTrial(baseline, TrialOrigin.BASELINE)] if settings.search.baseline else []
    given += [PlannedTrial(replace(baseline, **point), TrialOrigin.POINT) for point in settings.search.points]
    return dict(enumerate(given)) | {record.trial: PlannedTrial(record.params, record.origin) for record in begun}


def search_plan(settings: RunSettings, earlier: Sequence[TrialRecord] = (), num_warm: int = 0) -> SearchPlan:
    """What is left to try: first what an earlier process began and did not finish, then what it never began."""
    search = settings.search
    finished = {record.trial for record in earlier if record.status in FINISHED}
    begun = [record for record in earlier if record.trial not in finished]
    left = [number for number in range(search.samples) if number not in finished]
    begun_numbers = {record.trial for record in begun}
    return SearchPlan(
        space=search.space,
        fixed=baseline_params(settings.training),
        planned=planned_trials(settings, begun),
        numbers=sorted(left, key=lambda number: (number not in begun_numbers, number)),
        seed=settings.seed,
        startup_trials=search.startup_trials,
        num_warm=num_warm,
    )


def end_decided_trials(settings: RunSettings, history: RunState, events: EventLog) -> RunState:
    """Write down the end of trials whose last report decided it, where a crash came before that line was written."""
    stopped = {decision.trial for decision in history.rungs if not decision.passed}
    records = []
    for record in history.trials:
        status = record.status
        if status not in FINISHED and record.epochs and record.epochs[-1].epoch >= settings.search.asha.max_epochs:
            status = TrialStatus.COMPLETED
        elif status not in FINISHED and record.trial in stopped:
            status = TrialStatus.STOPPED
        if status is not record.status:
            events.trial_ended(record.trial, status, at=time.time())
        records.append(replace(record, status=status))
    return replace(history, trials=tuple(records))


def rebuild_study(folder: RunFolder, objective: Objective, plan: SearchPlan, earlier: RunState) -> optuna.Study:
    """A new study that holds the finished trials, those of a warm start first.

    Our events are the truth; a journal of an earlier process may end anywhere.
    """
    folder.study.unlink(missing_ok=True)
    study = open_study(folder.study, folder.name, objective.direction)
    describe_study(study, objective)
    for warm in earlier.warm:
        add_finished(study, warm.record, plan.space, objective, run=warm.run)
    for record in earlier.trials:
        if record.status in FINISHED:
            add_finished(study, record, plan.space, objective)
    return study
