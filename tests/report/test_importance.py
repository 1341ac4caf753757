import numpy as np
import pytest

from digit_search.config.settings import SearchSettings
from digit_search.records import TrialParams
from digit_search.report.importance import ENOUGH_TRIALS, LEAST_TRIALS, importances, with_ranks
from digit_search.report.parameters import param_scale
from digit_search.report.plots.contour import contour_plot, smoothed
from digit_search.report.plots.importance import importance_plot
from digit_search.report.wording import importance_verdict

SPACE = SearchSettings().space


def random_params(num_trials: int) -> list[TrialParams]:
    generator = np.random.default_rng(3)
    return [
        TrialParams(
            lr=float(10 ** generator.uniform(-4, -1.5)),
            gamma=float(generator.uniform(0.05, 0.9)),
            step_size=int(generator.integers(1, 8)),
            batch_size=int(generator.choice([32, 64, 128, 256])),
        )
        for _ in range(num_trials)
    ]


@pytest.mark.slow
def test_the_parameter_that_decides_comes_first_and_only_it_stands_out():
    order = sorted(random_params(60), key=lambda params: abs(np.log10(params.lr) + 2.5))
    found = importances(with_ranks(order), SPACE)
    assert [importance.name for importance in found if importance.stands_out] == ["lr"]
    assert found[0].name == "lr"
    assert found[0].share > 0.5
    assert sum(importance.share for importance in found) == pytest.approx(1)
    assert importance_verdict(found, 60) == "Beyond chance: lr."


def test_where_scores_have_nothing_to_do_with_the_parameters_nothing_stands_out():
    found = importances(with_ranks(random_params(60)), SPACE)
    assert len(found) == 4
    assert not any(importance.stands_out for importance in found)
    assert importance_verdict(found, 60) == "No parameter stands out from chance over these 60 trials."


def test_few_trials_give_a_warning_and_fewer_no_importance():
    few = importances(with_ranks(random_params(LEAST_TRIALS)), SPACE)
    assert few
    assert f"{LEAST_TRIALS} scored trials are too few to show which parameter matters" in importance_verdict(few, LEAST_TRIALS)
    assert "too few to tell" in importance_plot(few, LEAST_TRIALS).caption
    assert "too few" not in importance_plot(few, ENOUGH_TRIALS).caption
    assert importances(with_ranks(random_params(LEAST_TRIALS - 1)), SPACE) == []
    assert "at least 8 are needed" in importance_verdict([], LEAST_TRIALS - 1)
    assert importance_plot([], LEAST_TRIALS - 1) is None


def test_a_baseline_outside_of_the_space_and_a_stem_have_an_importance():
    order = [TrialParams(lr=0.5, stem="small"), *random_params(20)]
    assert {importance.name for importance in importances(with_ranks(order), SPACE)} == {"lr", "gamma", "step_size", "batch_size", "stem"}


def test_trials_that_are_all_the_same_have_no_importance():
    assert importances(with_ranks([TrialParams()] * 30), SPACE) == []


def test_the_surface_is_near_the_trials_values_and_ends_where_there_are_none():
    _, surface = smoothed(np.array([[0.0, 0.0], [0.02, 0.0]]), np.array([1.0, 2.0]))
    assert 1.4 < surface[0, 0] < 1.6
    assert surface.mask[-1, -1]
    assert not surface.mask[0, 0]


def test_the_contour_names_the_best_and_needs_differences(make_record):
    params = random_params(12)
    records = [make_record(trial, [(0.9, 0.1)], params=values) for trial, values in enumerate(params)]
    scales = [param_scale(name, records, SPACE[name]) for name in ("lr", "batch_size")]
    drawn = contour_plot([(record, 0.9 - 0.05 * index) for index, record in enumerate(records)], *scales)
    assert "the best trial reached 90.00" in drawn.svg
    assert contour_plot([(record, 0.9) for record in records], *scales) is None
