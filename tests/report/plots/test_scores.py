from digit_search.records import TrialStatus
from digit_search.report.compare import compare
from digit_search.report.plots.scores import comparison, winners_plot
from digit_search.report.run_data import load_run_data
from digit_search.report.summary import summarize

COMPLETED, STOPPED = TrialStatus.COMPLETED, TrialStatus.STOPPED


RETRAINED = ["retrained, validation 95.00", "retrained, test 97.00"]


def names_and_scores(picture):
    alt = picture.svg.partition("</title>")[0].partition(": ")[2]
    return alt.removesuffix("\N{NO-BREAK SPACE}%.").split("\N{NO-BREAK SPACE}%, ")


def test_the_scores_of_a_run_are_of_its_winner_runner_up_baseline_and_final_model(make_run):
    picture = comparison(summarize(load_run_data(make_run([STOPPED, COMPLETED, COMPLETED], finished=True))))
    best = ["best, trial 2 97.67", "runner-up, trial 1 97.26", "baseline, trial 0 80.00"]
    assert names_and_scores(picture) == [*best, *RETRAINED]


def test_a_baseline_that_won_is_drawn_once(make_run):
    picture = comparison(summarize(load_run_data(make_run([COMPLETED, STOPPED, COMPLETED], finished=True))))
    assert names_and_scores(picture) == ["best, trial 0 97.90", "runner-up, trial 2 97.67", *RETRAINED]


def test_without_a_winner_there_are_no_scores(make_run):
    run = make_run([TrialStatus.FAILED])
    assert comparison(summarize(load_run_data(run))) is None
    assert winners_plot(compare([run]).runs) is None


def test_the_winners_of_runs_are_named_by_the_runs_letters(make_run):
    runs = compare([make_run([COMPLETED] * 2, finished=True), make_run([COMPLETED], name="other"), make_run(name="empty")]).runs
    assert names_and_scores(winners_plot(runs)) == ["A, trial 0 97.90", "A, test digits 97.00", "B, trial 0 97.90"]
