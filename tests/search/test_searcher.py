"""The searcher against real Optuna studies: what it suggests, and what it tells."""

import os
from dataclasses import asdict
from types import SimpleNamespace

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.utils.util import flatten_dict

from digit_search.config.search_space import Choice, FloatRange, IntRange, default_space
from digit_search.errors import RunFolderError
from digit_search.records import PARAM_NAMES, EpochMetrics, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.search import recent_study
from digit_search.search.searcher import OptunaSearcher, PlannedTrial, SearchPlan
from digit_search.search.study import Objective, add_finished, lies_in_space, open_study, trial_seed

TOLD = Objective("val_accuracy", reports_per_epoch=1, max_step=9)
BASELINE = PlannedTrial(TrialParams(), TrialOrigin.BASELINE)


def make_searcher(folder, *, name="run", planned=(BASELINE,), over=lambda: False, space=None, numbers=range(20), seed=0, startup_trials=2):
    heard = []
    plan = SearchPlan(space or default_space(), TrialParams(), dict(enumerate(planned)), list(numbers), seed, startup_trials)
    study = open_study(folder / "study.journal", name, "maximize")
    searcher = OptunaSearcher(study, plan, TOLD, on_suggest=lambda *suggested: heard.append(suggested), is_over=over)
    return SimpleNamespace(searcher=searcher, heard=heard, study=lambda: open_study(folder / "study.journal", name, "maximize"))


def metrics(step, score):
    return EpochMetrics(step, 1.0, 0.5, 1.0, score, 0.01, 100, 1.5)


def result(step, score):
    """A trial's report as Tune hands it to a searcher: flat."""
    return flatten_dict({"step": step, "val_accuracy": score, "metrics": asdict(metrics(step, score))})


def run_trial(searcher, trial_id, scores):
    """Suggest a trial and let it report; the last report ends it, as Tune tells it."""
    config = searcher.suggest(trial_id)
    for step, score in enumerate(scores[:-1], start=1):
        searcher.on_trial_result(trial_id, result(step, score))
    searcher.on_trial_complete(trial_id, result(len(scores), scores[-1]))
    return config


def test_the_baseline_comes_first_then_the_points_then_suggestions_inside_the_space(tmp_path):
    point = PlannedTrial(TrialParams(lr=0.003, batch_size=128), TrialOrigin.POINT)
    made = make_searcher(tmp_path, planned=(BASELINE, point))
    configs = [run_trial(made.searcher, f"t{number}", [0.5]) for number in range(6)]
    assert [config["trial"] for config in configs] == list(range(6))
    assert {name: configs[0][name] for name in PARAM_NAMES} == {name: getattr(TrialParams(), name) for name in PARAM_NAMES}
    assert (configs[1]["lr"], configs[1]["batch_size"]) == (0.003, 128)
    assert all(lies_in_space(TrialParams(**{name: config[name] for name in PARAM_NAMES}), default_space()) for config in configs)
    assert [origin for _, _, _, origin in made.heard] == ["baseline", "point"] + ["suggested"] * 4


def test_a_stopped_trial_is_pruned_with_its_score_at_the_step_that_it_reached(tmp_path):
    made = make_searcher(tmp_path)
    run_trial(made.searcher, "t0", [0.7, 0.6, 0.65])
    trial = made.study().trials[0]
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, 0.65, {1: 0.7, 2: 0.6, 3: 0.65})


def test_a_trial_that_reached_the_end_is_complete_with_its_best_score(tmp_path):
    made = make_searcher(tmp_path)
    run_trial(made.searcher, "t0", [0.1, 0.2, 0.3, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8])
    trial = made.study().trials[0]
    assert (trial.state, trial.value, len(trial.intermediate_values)) == (TrialState.COMPLETE, 0.9, 9)


@pytest.mark.parametrize("end", [{"error": True}, {"result": {"failed": "diverged"}}, {"result": None}])
def test_a_failed_trial_is_told_as_failed(tmp_path, end):
    made = make_searcher(tmp_path)
    made.searcher.suggest("t0")
    made.searcher.on_trial_result("t0", result(1, 0.5))
    made.searcher.on_trial_complete("t0", **({"result": None, "error": True} if end == {"result": None} else end))
    assert made.study().trials[0].state is TrialState.FAIL


def test_attributes_carry_the_number_the_seed_what_was_spent_and_the_best_accuracy(tmp_path):
    made = make_searcher(tmp_path)
    run_trial(made.searcher, "t0", [0.5, 0.6])
    attributes = {
        "trial": 0,
        "seed": trial_seed(0, 0),
        "origin": "baseline",
        "images": 200,
        "seconds": 3.0,
        "epochs": 2.0,
        "val_accuracy": 0.6,
    }
    assert made.study().trials[0].user_attrs == attributes


def test_no_trial_stays_running_after_the_search(tmp_path):
    made = make_searcher(tmp_path)
    made.searcher.suggest("t0")
    made.searcher.suggest("t1")
    made.searcher.on_trial_result("t1", result(1, 0.5))
    made.searcher.close()
    assert {trial.state for trial in made.study().trials} == {TrialState.FAIL}


def test_the_suggestion_depends_on_seed_number_and_finished_history_alone(tmp_path):
    def fifth(folder, seed=0, restart=False):
        folder.mkdir()
        made = make_searcher(folder, seed=seed)
        for number in range(4):
            run_trial(made.searcher, f"t{number}", [0.5 + number / 10])
        if restart:
            made = make_searcher(folder, seed=seed, numbers=range(4, 20))
        return made.searcher.suggest("t4")

    first = fifth(tmp_path / "a")
    assert first == fifth(tmp_path / "b")
    assert first == fifth(tmp_path / "c", restart=True)
    assert first["lr"] != fifth(tmp_path / "d", seed=1)["lr"]


def test_suggestions_are_those_of_optunas_own_tpe_for_each_trial(tmp_path, monkeypatch):
    def suggestions(folder):
        folder.mkdir()
        searcher = make_searcher(folder).searcher
        return [run_trial(searcher, f"t{number}", [0.5 + number / 100] * (1 + number % 9)) for number in range(12)]

    ours = suggestions(tmp_path / "ours")
    monkeypatch.setattr("digit_search.search.searcher._SeededTPE", lambda shared, **options: TPESampler(**options))
    assert ours == suggestions(tmp_path / "optuna")


def test_tpe_goes_on_when_it_sees_fewer_trials_than_it_waited_for(tmp_path, monkeypatch):
    """Forgetting trials is no return to random suggestions."""

    def last(folder, max_seen):
        folder.mkdir()
        monkeypatch.setattr(recent_study, "MAX_SEEN", max_seen)
        monkeypatch.setattr(recent_study, "NUM_BEST", 3)
        searcher = make_searcher(folder, numbers=range(30), startup_trials=num_startup).searcher
        for number in range(16):
            run_trial(searcher, f"t{number}", [0.5 + number / 100] * (1 + number % 9))
        assert searcher._ot_study.num_scored == 16
        return searcher.suggest("t16")

    num_startup = 12
    few, all_seen = last(tmp_path / "few", 15), last(tmp_path / "all", 500)
    num_startup = 20
    random = last(tmp_path / "random", 500)
    assert few["trial"] == random["trial"] == 16
    assert few["lr"] not in (random["lr"], all_seen["lr"])


@pytest.mark.parametrize("startup_trials", [2, 20])
def test_a_suggestion_does_not_depend_on_what_runs_beside_it(tmp_path, startup_trials):
    def sixth(folder, num_running):
        folder.mkdir()
        numbers = [0, 1, 2, 3, *range(10, 10 + num_running), 5]
        made = make_searcher(folder, numbers=numbers, startup_trials=startup_trials)
        for number in range(4):
            run_trial(made.searcher, f"t{number}", [0.5 + number / 10])
        for number in range(num_running):
            made.searcher.suggest(f"running{number}")
        return made.searcher.suggest("t5")

    assert sixth(tmp_path / "alone", 0) == sixth(tmp_path / "beside", 3)


def test_suggestions_end_after_the_samples_or_when_the_search_is_over(tmp_path):
    assert make_searcher(tmp_path, numbers=[0]).searcher.suggest("t0") != Searcher.FINISHED
    made = make_searcher(tmp_path, name="short", numbers=[0])
    made.searcher.suggest("t0")
    assert made.searcher.suggest("t1") == Searcher.FINISHED
    assert make_searcher(tmp_path, name="late", over=lambda: True).searcher.suggest("t0") == Searcher.FINISHED


def test_a_baseline_outside_of_the_space_is_run_but_kept_out_of_the_study(tmp_path):
    space = default_space() | {"lr": FloatRange(low=1e-4, high=1e-3, log=True)}
    made = make_searcher(tmp_path, space=space)
    assert run_trial(made.searcher, "t0", [0.5])["lr"] == 0.01
    assert run_trial(made.searcher, "t1", [0.5])["lr"] <= 1e-3
    assert [trial.user_attrs["trial"] for trial in made.study().trials] == [1]


def test_a_conditional_parameter_is_searched_only_where_its_condition_holds(tmp_path):
    space = {
        "rotation_degrees": Choice(choices=[0.0, 10.0]),
        "shift_pixels": FloatRange(low=1.0, high=2.0, when={"rotation_degrees": 10.0}),
        "step_size": IntRange(low=1, high=7),
        "gamma": 0.5,
    }
    made = make_searcher(tmp_path, space=space, planned=())
    configs = [run_trial(made.searcher, f"t{number}", [0.5]) for number in range(12)]
    assert {config["gamma"] for config in configs} == {0.5}
    assert {config["rotation_degrees"] for config in configs} == {0.0, 10.0}
    for config in configs:
        assert (config["shift_pixels"] >= 1.0) == (config["rotation_degrees"] == 10.0)


def test_two_runs_keep_their_studies_apart_and_a_study_of_the_other_direction_is_refused(tmp_path):
    run_trial(make_searcher(tmp_path, name="a").searcher, "t0", [0.5])
    run_trial(make_searcher(tmp_path, name="b").searcher, "t0", [0.5])
    assert len(open_study(tmp_path / "study.journal", "a", "maximize").trials) == 1
    with pytest.raises(RunFolderError, match="expected study 'a' to minimize"):
        open_study(tmp_path / "study.journal", "a", "minimize")


def test_tpe_learns_from_pruned_trials_too(tmp_path):
    """After the start-up, suggestions gather where the scores were good."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {"lr": FloatRange(low=1e-4, high=1e-1, log=True)}
    made = make_searcher(tmp_path, space=space, planned=(), numbers=range(60), startup_trials=10)
    rates = []
    for number in range(60):
        config = made.searcher.suggest(f"t{number}")
        rates.append(config["lr"])
        made.searcher.on_trial_complete(f"t{number}", result(3, 0.99 if 3e-3 < config["lr"] < 1e-2 else 0.5))
    late = rates[30:]
    assert sum(2e-3 < rate < 1.5e-2 for rate in late) > len(late) / 2


def as_told(trial):
    return trial.state, trial.value, trial.params, trial.distributions, trial.intermediate_values, trial.user_attrs


@pytest.mark.parametrize("scores", [[0.1, 0.3, 0.2], [0.1] * 8 + [0.4], []])
def test_a_trial_put_back_from_the_records_is_told_as_it_was_when_it_ran(tmp_path, scores):
    made = make_searcher(tmp_path)
    status = {0: TrialStatus.FAILED, 3: TrialStatus.STOPPED, 9: TrialStatus.COMPLETED}[len(scores)]
    if scores:
        run_trial(made.searcher, "t0", scores)
    else:
        made.searcher.suggest("t0")
        made.searcher.on_trial_complete("t0", error=True)
    number, params, seed, origin = made.heard[0]
    record = TrialRecord(number, status, params, seed, [metrics(step, score) for step, score in enumerate(scores, start=1)], origin)
    again = open_study(tmp_path / "again.journal", "run", "maximize")
    add_finished(again, record, default_space(), TOLD)
    assert as_told(again.trials[0]) == as_told(made.study().trials[0])


def warm_study(folder, objective=TOLD):
    """Three trials of another run, told to a study: complete, stopped, and one that ran for longer than trials do here."""
    study = open_study(folder / "study.journal", "run", "maximize")
    for trial, num_epochs in enumerate((9, 3, 12)):
        epochs = [metrics(step, step / 20) for step in range(1, num_epochs + 1)]
        record = TrialRecord(trial, TrialStatus.STOPPED, TrialParams(lr=0.001 * (trial + 1)), trial, epochs)
        add_finished(study, record, default_space(), objective, run="other")
    return study


def test_trials_of_another_run_are_told_at_the_length_of_this_runs_trials_and_say_where_they_came_from(tmp_path):
    objective = [(trial.state, trial.value, trial.last_step, trial.user_attrs["run"]) for trial in warm_study(tmp_path).trials]
    assert objective == [
        (TrialState.COMPLETE, 0.45, 9, "other"),
        (TrialState.PRUNED, 0.15, 3, "other"),
        (TrialState.COMPLETE, 0.45, 9, "other"),
    ]


def test_a_warm_start_counts_as_start_up_and_repeats_no_random_draw(tmp_path):
    def first_rate(name, startup_trials, num_warm):
        folder = tmp_path / name
        folder.mkdir()
        if num_warm:
            warm_study(folder)
        plan = SearchPlan(default_space(), TrialParams(), {}, range(20), 0, startup_trials, num_warm)
        study = open_study(folder / "study.journal", "run", "maximize")
        searcher = OptunaSearcher(study, plan, TOLD, on_suggest=lambda *suggested: None, is_over=lambda: False)
        return searcher.suggest("t0")["lr"]

    cold, random, modelled = first_rate("cold", 4, 0), first_rate("random", 4, 3), first_rate("modelled", 3, 3)
    # The same seeds draw differently beside a warm start; with as many warm trials as startup trials TPE's model is asked at once.
    assert len({cold, random, modelled}) == 3


def test_no_link_lies_beside_the_journal_for_a_kill_to_leave_there(tmp_path, monkeypatch):
    def link(*paths):
        raise AssertionError(paths)

    monkeypatch.setattr(os, "symlink", link)
    study = open_study(tmp_path / "study.journal", "run", "maximize")
    study.tell(study.ask(), 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]
