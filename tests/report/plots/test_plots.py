"""What holds for all pictures of a run."""

import re
from xml.etree import ElementTree

import pytest

from digit_search.config.settings import SearchSettings
from digit_search.records import TrialStatus
from digit_search.report.plots.curves import learning_curves, retrain_curves
from digit_search.report.plots.parallel import parallel_coordinates
from digit_search.report.plots.search import history_plots, slice_plots
from digit_search.report.plots.timeline import timeline
from digit_search.report.run_data import load_run_data
from digit_search.report.timeline import WorkClock

SPACE = SearchSettings().space
CLOCK = WorkClock([(0.0, 1e6)])
STATUSES = [TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED, TrialStatus.INTERRUPTED, TrialStatus.RUNNING]


def all_plots(records, rungs=()):
    return [
        learning_curves(records, rungs, "val_accuracy"),
        *history_plots(records, "val_accuracy"),
        *slice_plots(records, "val_accuracy", SPACE),
        parallel_coordinates(records, "val_accuracy", SPACE),
        timeline(records, CLOCK),
    ]


@pytest.mark.parametrize("num_trials", [1, 40, 90])
@pytest.mark.slow
def test_every_plot_is_drawn_for_few_and_for_many_trials(make_run, num_trials):
    folder = make_run([STATUSES[trial % 5] for trial in range(num_trials)])
    state = load_run_data(folder).state
    pictures = all_plots(state.trials, state.rungs)
    assert len(pictures) == 9
    for picture in pictures:
        ElementTree.fromstring(picture.svg)
        assert "#" not in re.sub(r'url\(#|href="#|&#', "", picture.svg), "a colour that the page's theme does not have"
        assert "nan" not in picture.svg


def test_without_a_score_there_is_nothing_to_draw(make_record):
    records = [make_record(0, [], TrialStatus.RUNNING)]
    assert learning_curves(records, [], "val_accuracy") is None
    assert parallel_coordinates(records, "val_accuracy", SPACE) is None
    assert timeline(records, CLOCK) is None
    assert history_plots(records, "val_accuracy") == slice_plots(records, "val_accuracy", SPACE) == retrain_curves(None) == []


def test_the_same_records_give_the_same_picture(make_record):
    records = [make_record(trial, [(0.5, 1.0), (0.9, 0.1)], started_at=5.0, ended_at=30.0) for trial in range(3)]
    assert learning_curves(records, [], "val_accuracy") == learning_curves(records, [], "val_accuracy")
    assert timeline(records, CLOCK) == timeline(records, CLOCK)
