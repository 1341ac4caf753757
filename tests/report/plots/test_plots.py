import re
from xml.etree import ElementTree

import pytest

from digit_search.config.settings import SearchSettings
from digit_search.records import RungDecision, TrialOrigin, TrialParams, TrialStatus
from digit_search.report.parameters import param_scale, shown_params
from digit_search.report.plots.curves import learning_curves, retrain_curves
from digit_search.report.plots.parallel import parallel_coordinates
from digit_search.report.plots.search import history_plots, slice_plots
from digit_search.report.plots.timeline import timeline
from digit_search.report.run_data import load_run_data
from digit_search.report.work_clock import WorkClock
from digit_search.report.workers import worker_lanes

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
def test_every_plot_is_drawn_for_few_and_for_many_trials(make_run, num_trials):
    folder = make_run([STATUSES[trial % 5] for trial in range(num_trials)])
    history = load_run_data(folder).state
    pictures = all_plots(history.trials, history.rungs)
    assert len(pictures) == 9
    for picture in pictures:
        ElementTree.fromstring(picture.svg)
        assert "#" not in re.sub(r'url\(#|href="#|&#', "", picture.svg), "a color that the page's theme does not know"
        assert "nan" not in picture.svg


def test_without_a_score_there_is_nothing_to_draw(make_record):
    records = [make_record(0, [], TrialStatus.RUNNING)]
    assert learning_curves(records, [], "val_accuracy") is None
    assert parallel_coordinates(records, "val_accuracy", SPACE) is None
    assert timeline(records, CLOCK) is None
    assert history_plots(records, "val_accuracy") == slice_plots(records, "val_accuracy", SPACE) == retrain_curves(None) == []


def test_a_dollar_in_a_hosts_name_starts_no_formula(make_record):
    record = make_record(0, [(0.9, 0.1)], node="$x^{<b>", started_at=5.0, ended_at=30.0)
    assert "$x^{&lt;b&gt;" in timeline([record], CLOCK).svg


def test_rungs_are_named_with_how_many_went_on(make_record):
    records = [make_record(trial, [(0.5, 1.0), (0.9, 0.1)]) for trial in range(3)]
    svg = learning_curves(records, [RungDecision(1, trial, 0.1, trial < 1) for trial in range(3)], "val_accuracy").svg
    assert "rung 1: 1 of 3 went on" in svg


def test_the_best_the_baseline_and_the_confirmed_trial_are_named(make_record):
    records = [make_record(trial, [(0.5 + trial / 10, 1.0)]) for trial in range(3)]
    records.append(make_record(3, [(0.4, 1.0)], origin=TrialOrigin.BASELINE))
    svg = learning_curves(records, [], "val_accuracy", confirmed=1).svg
    assert [text for text in re.findall(r"trial \d, [a-z ]+", svg) if "stopped" not in text] == [
        "trial 3, baseline",
        "trial 1, confirmed",
        "trial 2, best",
    ]


def test_the_same_records_give_the_same_picture(make_record):
    records = [make_record(trial, [(0.5, 1.0), (0.9, 0.1)], started_at=5.0, ended_at=30.0) for trial in range(3)]
    assert learning_curves(records, [], "val_accuracy") == learning_curves(records, [], "val_accuracy")
    assert timeline(records, CLOCK) == timeline(records, CLOCK)


def test_trials_that_overlap_need_two_workers_and_others_share_one(make_record):
    spans = [(100.0, 200.0), (150.0, 250.0), (200.0, 300.0)]
    records = [make_record(trial, [], started_at=begin, ended_at=end, node="n") for trial, (begin, end) in enumerate(spans)]
    lanes = worker_lanes(records, CLOCK)
    assert [[span[0].trial for span in lane.trials] for lane in lanes] == [[0, 2], [1]]
    assert [lane.busy_seconds for lane in lanes] == [200.0, 100.0]


def test_a_trial_suggested_ahead_of_a_free_worker_begins_with_its_work(make_record):
    # Each epoch of these records took 10.5 seconds.
    first = make_record(0, [(0.9, 0.1)] * 2, started_at=100.0, ended_at=121.0, node="n")
    ahead = make_record(1, [(0.9, 0.1)] * 2, started_at=101.0, ended_at=142.0, node="n")
    (lane,) = worker_lanes([first, ahead], CLOCK)
    assert [begin for _, begin, _ in lane.trials] == [100.0, 121.0]


def test_a_running_trial_is_busy_until_now_and_nodes_have_their_own_workers(make_record):
    running = make_record(0, [], TrialStatus.RUNNING, started_at=100.0, node="a")
    other = make_record(1, [], started_at=300.0, ended_at=310.0, node="b")
    lanes = worker_lanes([running, other], WorkClock([(0.0, 310.0)]))
    assert [(lane.node, lane.busy_seconds) for lane in lanes] == [("a", 210.0), ("b", 10.0)]


def test_a_rest_before_a_resume_takes_no_time_on_the_timeline(make_record):
    clock = WorkClock([(100.0, 150.0), (10_100.0, 10_200.0)])
    # The first was cut off, and went on after the rest; each epoch of these records took 10.5 seconds.
    across = make_record(0, [(0.9, 0.1)] * 6, started_at=110.0, ended_at=10_120.0, node="n")
    after = make_record(1, [(0.9, 0.1)], started_at=10_130.0, ended_at=10_150.0, node="n")
    lanes = worker_lanes([across, after], clock)
    assert [[span[1:] for span in lane.trials] for lane in lanes] == [[(10.0, 70.0), (89.5, 100.0)]]
    assert "rest of 2\N{NO-BREAK SPACE}h 46\N{NO-BREAK SPACE}min" in timeline([across, after], clock).svg


def test_a_trial_that_was_cut_off_is_idle_from_its_last_report_until_it_goes_on(make_record):
    clock = WorkClock([(100.0, 150.0), (10_100.0, 10_200.0)])
    record = make_record(0, [(0.9, 0.1)] * 2, started_at=110.0, ended_at=10_160.0, node="n")
    # Two reports before the rest, of which the second is repeated after it.
    reports = {0: [(125.0, 10.5), (140.0, 10.5), (10_160.0, 10.5)]}
    (lane,) = worker_lanes([record], clock, reports)
    assert [span[1:] for span in lane.trials] == [(14.5, 40.0), (99.5, 110.0)]


def test_only_parameters_that_differ_are_shown_beside_the_core_four(make_record):
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
