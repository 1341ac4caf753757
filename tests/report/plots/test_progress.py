from digit_search.records import TrialStatus
from digit_search.report.compare import compare
from digit_search.report.plots.progress import progress_plots

COMPLETED = TrialStatus.COMPLETED


def test_the_progress_of_each_run_is_a_line_that_ends_with_its_letter(make_run):
    runs = compare([make_run([COMPLETED] * 2), make_run([COMPLETED], name="other")]).runs
    for picture in progress_plots(runs):
        assert "of 2 runs; they end at A" in picture.svg
        # In the legend, and at the end of the line.
        assert [picture.svg.count(f">{letter}</text>") for letter in "AB"] == [2, 2]


def test_without_a_score_there_is_no_progress(make_run):
    assert progress_plots(compare([make_run([TrialStatus.FAILED])]).runs) == []
