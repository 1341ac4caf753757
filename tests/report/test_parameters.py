import pytest

from digit_search.config.settings import SearchSettings
from digit_search.records import TrialParams
from digit_search.report.parameters import param_scale, shown_params

SPACE = SearchSettings().space


def test_beside_the_core_four_only_parameters_that_differ_are_shown(make_record):
    records = [make_record(0, []), make_record(1, [], params=TrialParams(stem="small"))]
    assert shown_params(records) == ["lr", "gamma", "step_size", "batch_size", "stem"]


def test_the_learning_rate_is_logarithmic_and_choices_are_evenly_spaced(make_record):
    records = [make_record(trial, [], params=TrialParams(lr=10.0**-trial, batch_size=32 << trial)) for trial in range(1, 4)]
    lr, batch = param_scale("lr", records, SPACE["lr"]), param_scale("batch_size", records, SPACE["batch_size"])
    assert lr.position(0.01) == pytest.approx(-2)
    assert [batch.position(value) for value in (64, 128, 256)] == [0.0, 1.0, 2.0]
    assert [text for _, text in lr.ticks()] == ["0.001", "0.003", "0.01", "0.03", "0.1"]


def test_a_parameter_with_one_value_has_one_tick(make_record):
    assert param_scale("gamma", [make_record(0, [])], SPACE["gamma"]).ticks() == [(0.05, "0.05")]
