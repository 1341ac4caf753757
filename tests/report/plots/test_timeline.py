import pytest

from digit_search.report.plots.timeline import MAX_LANES, timeline
from digit_search.report.timeline import WorkClock

CLOCK = WorkClock([(0.0, 1e6)])


def test_a_dollar_in_a_host_name_starts_no_formula(make_record):
    record = make_record(0, [(0.9, 0.1)], node="$x^{<b>", started_at=5.0, ended_at=30.0)
    assert "$x^{&lt;b&gt;" in timeline([record], CLOCK).svg


def test_a_pause_before_a_resume_is_a_line_with_its_length(make_record):
    clock = WorkClock([(100.0, 150.0), (10_100.0, 10_200.0)])
    record = make_record(0, [(0.9, 0.1)] * 6, started_at=110.0, ended_at=10_120.0, node="n")
    picture = timeline([record], clock)
    assert "paused for 2\N{NO-BREAK SPACE}h 46\N{NO-BREAK SPACE}min" in picture.svg
    assert "Vertical lines are pauses" in picture.caption


@pytest.mark.slow
def test_only_the_first_of_very_many_workers_are_drawn(make_record):
    records = [make_record(trial, [], started_at=10.0, ended_at=20.0, node="n") for trial in range(MAX_LANES + 1)]
    picture = timeline(records, CLOCK)
    assert f"n · {MAX_LANES}<" in picture.svg
    assert f"n · {MAX_LANES + 1}<" not in picture.svg
    assert f"Only the first {MAX_LANES} of {MAX_LANES + 1} workers are shown." in picture.caption
