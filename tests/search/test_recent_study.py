import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from digit_search.search import recent_study
from digit_search.search.recent_study import RecentStudy


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(recent_study, "MAX_SEEN", 20)
    monkeypatch.setattr(recent_study, "NUM_BEST", 3)


def tell(study, score, *, steps=9, state=TrialState.COMPLETE):
    trial = study.ask()
    trial.suggest_float("lr", 0.001, 0.1, log=True)
    for step in range(1, steps + 1):
        trial.report(score, step)
    return study.tell(trial, score if state is TrialState.COMPLETE else None, state=state)


def seen(study):
    return [trial.number for trial in study._get_trials(deepcopy=False)]


def make(direction="maximize"):
    return RecentStudy(optuna.create_study(direction=direction, sampler=TPESampler(seed=0)))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_best_trials_and_the_latest_are_seen(direction):
    study = make(direction)
    sign = 1 if direction == "maximize" else -1
    for number in range(50):
        tell(study, sign * (100 if number in (0, 4, 7) else number * 37 % 50 / 100))
        assert {0, 4, 7} & set(range(number + 1)) <= set(seen(study))
        assert seen(study)[-1] == number
        assert len(seen(study)) == number + 1 or 10 <= len(seen(study)) <= 20
    assert seen(study) == [0, 4, 7, *range(36, 50)]
    assert len(study._storage.get_all_trials(study._study_id)) == 50


@pytest.mark.parametrize("sign", [1, -1])
def test_complete_trials_are_better_than_pruned_ones_and_those_that_went_further_than_others(sign):
    study = make("maximize" if sign == 1 else "minimize")
    tell(study, sign * 0.1)
    tell(study, sign * 0.2, steps=7, state=TrialState.PRUNED)
    tell(study, float("nan"), steps=7, state=TrialState.PRUNED)
    tell(study, sign * 0.3, steps=7, state=TrialState.PRUNED)
    for _ in range(40):
        tell(study, sign * 0.9, steps=1, state=TrialState.PRUNED)
    assert seen(study)[:3] == [0, 1, 3]


def test_trials_without_a_score_and_running_ones_are_not_seen():
    study = make()
    tell(study, 0.5)
    tell(study, 0.5, state=TrialState.FAIL)
    study.ask()
    assert seen(study) == [0]


def test_what_is_seen_does_not_depend_on_when_the_study_was_opened():
    study = make()
    for number in range(33):
        tell(study, number % 7 / 10)
    again = RecentStudy(study)
    assert seen(again) == seen(study)
    for number in range(9):
        tell(again, number % 5 / 10)
    assert seen(again) == seen(RecentStudy(study))


def test_nothing_of_a_short_study_is_hidden():
    study = make()
    for number in range(20):
        tell(study, number / 20)
    assert seen(study) == list(range(20))
