"""What is suggested, and which trials TPE learns from."""

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from digit_search.config.search_space import Choice, FloatRange, IntRange, default_space
from digit_search.records import EarlierTrial, EpochMetrics, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.search import suggest as module
from digit_search.search.study import Objective, is_in_space, suggest_params, to_optuna, trial_seed
from digit_search.search.suggest import PlannedTrial, SearchPlan, Suggester, VisibleTrials

OBJECTIVE = Objective("val_accuracy", reports_per_epoch=1, max_step=9)
BASELINE = PlannedTrial(TrialParams(), TrialOrigin.BASELINE)


def metrics(step, score):
    return EpochMetrics(step, 1.0, 0.5, 1.0, score, 0.01, 100, 1.5)


def make_suggester(*, planned=(BASELINE,), space=None, seed=0, startup_trials=2, warm=(), finished=()):
    plan = SearchPlan(space or default_space(), TrialParams(), dict(enumerate(planned)), range(60), seed, startup_trials, len(warm))
    return Suggester(plan, OBJECTIVE, warm, finished)


def ended(number, suggested, scores):
    """A trial that reported these accuracies and ended."""
    status = TrialStatus.COMPLETED if len(scores) == 9 else TrialStatus.STOPPED if scores else TrialStatus.FAILED
    epochs = tuple(metrics(step, score) for step, score in enumerate(scores, start=1))
    return TrialRecord(number, status, suggested.params, trial_seed(0, number), epochs, suggested.origin)


def run_trial(suggester, number, scores):
    """Suggest a trial and let it end; return its record."""
    record = ended(number, suggester.suggest(number), scores)
    suggester.learn(record)
    return record


def test_the_baseline_comes_first_then_the_points_then_suggestions_inside_the_space():
    point = PlannedTrial(TrialParams(lr=0.003, batch_size=128), TrialOrigin.POINT)
    suggester = make_suggester(planned=(BASELINE, point))
    records = [run_trial(suggester, number, [0.5]) for number in range(6)]
    assert (records[0].params, records[1].params) == (TrialParams(), TrialParams(lr=0.003, batch_size=128))
    assert all(is_in_space(record.params, default_space()) for record in records)
    assert [record.origin for record in records] == ["baseline", "point"] + ["suggested"] * 4


def test_the_suggestion_depends_only_on_seed_number_and_finished_trials():
    def fifth(seed=0, restart=False):
        suggester = make_suggester(seed=seed)
        records = [run_trial(suggester, number, [0.5 + number / 10]) for number in range(4)]
        if restart:
            suggester = make_suggester(seed=seed, finished=records)
        return suggester.suggest(4)

    first = fifth()
    assert first == fifth() == fifth(restart=True)
    assert first.params.lr != fifth(seed=1).params.lr


@pytest.mark.parametrize("startup_trials", [2, 20])
def test_a_suggestion_does_not_depend_on_the_order_in_which_trials_ended(startup_trials):
    def sixth(order):
        suggester = make_suggester(startup_trials=startup_trials)
        suggested = {number: suggester.suggest(number) for number in range(4)}
        for number in order:
            suggester.learn(ended(number, suggested[number], [0.5 + number / 10]))
        return suggester.suggest(5)

    assert sixth([0, 1, 2, 3]) == sixth([2, 0, 3, 1])


def test_suggestions_are_those_of_optunas_own_tpe_over_one_growing_study():
    suggester, study = make_suggester(), optuna.create_study(direction="maximize")
    for number in range(12):
        record = run_trial(suggester, number, [0.5 + number / 100] * (1 + number % 9))
        if number:
            study.sampler = TPESampler(seed=trial_seed(0, number), n_startup_trials=2, multivariate=True)
            trial = study.ask()
            assert suggest_params(trial, default_space(), TrialParams()) == record.params
            study.tell(trial, state=TrialState.FAIL)
        study.add_trial(to_optuna(record, default_space(), OBJECTIVE))


def test_tpe_keeps_its_model_when_it_sees_fewer_trials_than_the_start_up_has(monkeypatch):
    """Dropping trials does not lead back to random suggestions."""

    def last(max_visible, startup_trials):
        monkeypatch.setattr(module, "MAX_VISIBLE", max_visible)
        monkeypatch.setattr(module, "NUM_BEST", 3)
        suggester = make_suggester(startup_trials=startup_trials)
        for number in range(16):
            run_trial(suggester, number, [0.5 + number / 100] * (1 + number % 9))
        return suggester.suggest(16).params.lr

    few, all_seen, random = last(15, 12), last(500, 12), last(500, 20)
    assert len({few, all_seen, random}) == 3


def test_a_trial_outside_of_the_space_and_a_failed_one_teach_nothing():
    space = default_space() | {"lr": FloatRange(low=1e-4, high=1e-3, log=True)}

    def third(*scores_of_first):
        suggester = make_suggester(space=space, startup_trials=1)
        run_trial(suggester, 0, [0.5])
        for scores in scores_of_first:
            run_trial(suggester, 1, scores)
        return suggester.suggest(2)

    assert third() == third([]) != third([0.5])
    assert third().params.lr <= 1e-3


def test_a_conditional_parameter_is_searched_only_where_its_condition_holds():
    space = {
        "rotation_degrees": Choice(choices=[0.0, 10.0]),
        "shift_pixels": FloatRange(low=1.0, high=2.0, when={"rotation_degrees": 10.0}),
        "step_size": IntRange(low=1, high=7),
        "gamma": 0.5,
    }
    suggester = make_suggester(space=space, planned=())
    suggestions = [run_trial(suggester, number, [0.5]).params for number in range(12)]
    assert {params.gamma for params in suggestions} == {0.5}
    assert {params.rotation_degrees for params in suggestions} == {0.0, 10.0}
    for params in suggestions:
        assert (params.shift_pixels >= 1.0) == (params.rotation_degrees == 10.0)


def test_tpe_learns_from_stopped_trials_too():
    """After the start-up, suggestions gather where the scores were good."""
    space = {"lr": FloatRange(low=1e-4, high=1e-1, log=True)}
    suggester = make_suggester(space=space, planned=(), startup_trials=10)
    rates = []
    for number in range(60):
        suggested = suggester.suggest(number)
        rates.append(suggested.params.lr)
        suggester.learn(ended(number, suggested, [0.99 if 3e-3 < rates[-1] < 1e-2 else 0.5] * 3))
    late = rates[30:]
    assert sum(2e-3 < rate < 1.5e-2 for rate in late) > len(late) / 2


def test_a_warm_start_counts_as_start_up_and_repeats_no_random_draw():
    warm = [
        EarlierTrial("other", TrialRecord(trial, TrialStatus.STOPPED, TrialParams(lr=0.001 * (trial + 1)), trial, (metrics(1, 0.5),)))
        for trial in range(3)
    ]
    cold, random, modelled = (
        make_suggester(planned=(), startup_trials=startup_trials, warm=earlier).suggest(0).params.lr
        for startup_trials, earlier in ((4, []), (4, warm), (3, warm))
    )
    # The same seeds draw differently with a warm start. With as many warm trials as startup trials, TPE's model is used at once.
    assert len({cold, random, modelled}) == 3


def test_a_warm_start_whose_last_trial_is_outside_of_the_space_still_teaches_all_parameters_together():
    inside = [TrialRecord(trial, TrialStatus.STOPPED, TrialParams(lr=0.001 * (trial + 1)), trial, (metrics(1, 0.5),)) for trial in range(4)]
    outside = TrialRecord(4, TrialStatus.STOPPED, TrialParams(lr=1.0), 4, (metrics(1, 0.5),))
    with_it, without_it = (
        make_suggester(planned=(), warm=[EarlierTrial("other", record) for record in records]) for records in ([*inside, outside], inside)
    )
    study = optuna.create_study(direction="maximize", sampler=with_it._sampler(0))
    study.add_trials(without_it._visible.in_order())
    assert with_it.suggest(0).params == suggest_params(study.ask(), default_space(), TrialParams())


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "MAX_VISIBLE", 20)
    monkeypatch.setattr(module, "NUM_BEST", 3)


def finished(score, *, steps=9, state=TrialState.COMPLETE):
    values = dict.fromkeys(range(1, steps + 1), score)
    return optuna.trial.create_trial(state=state, value=score if state is TrialState.COMPLETE else None, intermediate_values=values)


def places(visible):
    return [trial.number for trial in visible.in_order()]


def make_visible(metric="val_accuracy"):
    return VisibleTrials(Objective(metric, 1, 9))


@pytest.mark.parametrize(("metric", "sign"), [("val_accuracy", 1), ("val_loss", -1)])
def test_the_best_trials_and_the_latest_are_visible(small, metric, sign):
    visible = make_visible(metric)
    for number in range(50):
        visible.add(number, finished(sign * (100 if number in (0, 4, 7) else number * 37 % 50 / 100)))
        seen = places(visible)
        assert {0, 4, 7} & set(range(number + 1)) <= set(seen)
        assert seen[-1] == number
        assert len(seen) == number + 1 or 10 <= len(seen) <= 20
    assert places(visible) == [0, 4, 7, *range(36, 50)]
    assert visible.num_scored == 50


@pytest.mark.parametrize(("metric", "sign"), [("val_accuracy", 1), ("val_loss", -1)])
def test_complete_trials_are_better_than_pruned_ones_and_those_that_went_further_than_others(small, metric, sign):
    visible = make_visible(metric)
    for place, trial in enumerate(
        [
            finished(sign * 0.1),
            finished(sign * 0.2, steps=7, state=TrialState.PRUNED),
            finished(float("nan"), steps=7, state=TrialState.PRUNED),
            finished(sign * 0.3, steps=7, state=TrialState.PRUNED),
            *(finished(sign * 0.9, steps=1, state=TrialState.PRUNED) for _ in range(40)),
        ]
    ):
        visible.add(place, trial)
    assert places(visible)[:3] == [0, 1, 3]


def test_nothing_of_a_short_search_is_hidden_and_the_order_is_that_of_the_places(small):
    visible = make_visible()
    for place in reversed(range(20)):
        visible.add(place, finished(place / 20))
    assert places(visible) == list(range(20))
