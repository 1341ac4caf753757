import re

from digit_search.records import RungDecision, TrialOrigin
from digit_search.report.plots.curves import learning_curves


def test_a_rung_is_labelled_with_the_number_of_trials_that_continued(make_record):
    records = [make_record(trial, [(0.5, 1.0), (0.9, 0.1)]) for trial in range(3)]
    svg = learning_curves(records, [RungDecision(1, trial, 0.1, trial < 1) for trial in range(3)], "val_accuracy").svg
    assert "rung 1: 1 of 3 continued" in svg


def test_the_best_the_baseline_and_the_confirmed_trial_are_named(make_record):
    records = [make_record(trial, [(0.5 + trial / 10, 1.0)]) for trial in range(3)]
    records.append(make_record(3, [(0.4, 1.0)], origin=TrialOrigin.BASELINE))
    svg = learning_curves(records, [], "val_accuracy", confirmed=1).svg
    assert [text for text in re.findall(r"trial \d, [a-z ]+", svg) if "stopped" not in text] == [
        "trial 3, baseline",
        "trial 1, confirmed",
        "trial 2, best",
    ]
