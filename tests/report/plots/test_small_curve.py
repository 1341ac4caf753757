import math
import re

from markupsafe import Markup

from digit_search.report.plots.small_curve import HEIGHT, MAX_POINTS, PAD, WIDTH, frame_of, small_curve


def points(svg):
    return [[tuple(map(float, pair.split(","))) for pair in line.split(" ")] for line in re.findall(r'points="([^"]*)"', svg)]


def test_a_curve_fills_the_frame_of_all_trials_and_ends_with_a_mark(make_record):
    record = make_record(3, [(0.5, 1.0), (0.99, 0.1)])
    svg = small_curve(record, record, frame_of([record]))
    assert isinstance(svg, Markup)
    (curve,) = points(svg)
    assert curve[-1] == (WIDTH - PAD, PAD)
    assert curve[0][1] == HEIGHT - PAD
    assert f'<circle cx="{WIDTH - PAD}" cy="{PAD}.0"' in svg
    assert "Learning curve of trial 3: validation accuracy from 50.00\N{NO-BREAK SPACE}% in epoch 1 to 99.00\N{NO-BREAK SPACE}% in 2" in svg


def test_the_best_trial_is_behind_the_curves_of_the_others(make_record):
    best, other = make_record(0, [(0.9, 0.1), (0.95, 0.1)]), make_record(1, [(0.5, 1.0)])
    svg = small_curve(other, best, frame_of([best, other]))
    assert svg.count("<polyline") == 2
    assert svg.index('class="reference"') < svg.rindex("<polyline")


def test_a_long_curve_is_thinned_and_keeps_its_last_report(make_record):
    record = make_record(0, [(0.5 + 0.001 * epoch, 1.0) for epoch in range(3 * MAX_POINTS + 1)])
    (curve,) = points(small_curve(record, None, frame_of([record])))
    assert len(curve) <= MAX_POINTS
    assert curve[-1] == (WIDTH - PAD, PAD)


def test_without_a_score_there_is_no_curve(make_record):
    records = [make_record(0, []), make_record(1, [(math.nan, 0.1)])]
    assert [small_curve(record, None, frame_of(records)) for record in records] == ["", ""]
