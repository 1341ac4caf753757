import csv
import json
from pathlib import Path

import pytest

from digit_search import cli
from digit_search.errors import RunFolderError
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.report.build import comparison_name, write_comparison
from digit_search.report.compare import compare, verdicts
from digit_search.run.layout import RunFolder
from tests.event_log import MadeUpLog

COMPLETED, STOPPED, FAILED = TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED


def scored(make_run, name, accuracies, num_validation=400, seed=0):
    """A run whose trials have one epoch each, of 10 seconds and 3,600 images."""
    folder = make_run(name=name)
    folder.config.write_text(f"seed = {seed}\n[search]\nsamples = {len(accuracies)}\n")
    folder.environment.write_text(
        json.dumps({"data": {"embedded": False, "train_fingerprint": "f" * 64}, "split": {"num_validation": num_validation}})
    )
    log = MadeUpLog(folder.events)
    for trial, accuracy in enumerate(accuracies):
        at = 1000.0 + 10 * trial
        log.trial_started(trial, TrialParams(lr=0.001 * (trial + 1)), trial, TrialOrigin.SUGGESTED, at)
        log.epoch(trial, EpochMetrics(1, 1, 0.5, 1 - accuracy, accuracy, 0.1, 3600, 10.0), "cpu", "n", at + 10)
        log.trial_ended(trial, COMPLETED, at + 10)
    return folder


def test_the_best_accuracy_so_far_is_known_by_images_and_by_seconds_of_work(make_run):
    folder = scored(make_run, "a", [0.9, 0.8, 0.95])
    (run,) = compare([folder]).runs
    assert [(point.images, point.best_accuracy) for point in run.progress] == [(3600, 0.9), (7200, 0.9), (10800, 0.95)]
    # The run's first event is its phase at 990.
    assert [point.seconds for point in run.progress] == [20.0, 30.0, 40.0]


def test_scores_of_a_trial_that_failed_are_no_progress(make_run):
    folder = scored(make_run, "a", [0.9])
    log = MadeUpLog(folder.events)
    log.trial_started(1, TrialParams(), 1, TrialOrigin.SUGGESTED, 2000.0)
    log.epoch(1, EpochMetrics(1, 1, 0.5, 0.01, 0.99, 0.1, 3600, 10.0), "cpu", "n", 2010.0)
    log.trial_ended(1, FAILED, 2011.0, "ValueError")
    assert compare([folder]).runs[0].progress[-1].best_accuracy == 0.9


def test_a_clear_lead_differs_and_a_small_one_is_a_tie_also_on_different_numbers_of_digits(make_run):
    folders = [scored(make_run, "a", [0.98]), scored(make_run, "b", [0.97]), scored(make_run, "c", [0.9])]
    lines = verdicts(compare(folders))
    assert lines == [
        "A's winner, trial 0, is 1.00 percentage points more accurate than B's, trial 0: chance may explain that. They are tied.",
        "A's winner, trial 0, is 8.00 percentage points more accurate than C's, trial 0: that is more than chance explains.",
    ]
    few = [scored(make_run, "many", [0.98]), scored(make_run, "few", [0.9], num_validation=20)]
    assert "They are tied" in verdicts(compare(few))[0]


def test_equal_winners_are_as_accurate_and_different_digits_are_pointed_out(make_run):
    folders = [scored(make_run, "a", [0.98]), scored(make_run, "b", [0.98], seed=1)]
    lines = verdicts(compare(folders))
    assert "is as accurate as B's" in lines[0]
    assert lines[1] == "The runs were not validated on the same digits, which may explain part of a difference."


def test_only_settings_that_differ_are_listed(make_run):
    comparison = compare([scored(make_run, "a", [0.9]), scored(make_run, "b", [0.9, 0.8], seed=1)])
    assert comparison.settings == {"seed": ("0", "1"), "search.samples": ("1", "2")}
    assert comparison.surroundings == {}


@pytest.mark.slow
def test_importance_is_merged_only_where_the_spaces_are_the_same(make_run):
    a, b, c = (scored(make_run, name, [0.9 + trial / 1000 for trial in range(12)]) for name in "abc")
    c.config.write_text("[search.space.lr]\nlow = 1e-3\nhigh = 1e-1\nlog = true\n")
    comparison = compare([a, b, c])
    assert [(merged.letters, merged.num_trials) for merged in comparison.merged] == [(("A", "B"), 24)]
    assert comparison.merged[0].importances[0].name == "lr"
    assert compare([a, c]).merged == ()


def test_a_run_named_twice_and_too_many_runs_are_refused(make_run):
    folder = scored(make_run, "a", [0.9])
    with pytest.raises(RunFolderError, match="named more than once"):
        compare([folder, RunFolder(folder.path.resolve())])
    with pytest.raises(RunFolderError, match="at most 26 runs to compare, found 27"):
        compare([RunFolder(folder.path / str(number)) for number in range(27)])


@pytest.mark.slow
def test_the_page_and_the_table_hold_every_run(make_run, tmp_path, read_page):
    folders = [make_run([COMPLETED, STOPPED], finished=True, name="a&b"), scored(make_run, "c", [0.98, 0.9]), make_run(name="empty")]
    table = write_comparison(folders, tmp_path / "both.html")
    page = read_page(tmp_path / "both.html")
    assert "A a&b, B c, C empty" in page.text
    assert "search.samples" in page.text
    assert len(page.all("svg")) == 3
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["run"] for row in rows] == ["a&b", "c", "empty"]
    assert [row["winner"] for row in rows] == ["0", "0", ""]
    assert [row["test_accuracy"] for row in rows] == ["0.97", "", ""]
    assert [row["search.samples"] for row in rows] == ["2", "2", "1"]


def test_a_comparison_is_named_after_its_runs_and_the_name_stays_short():
    names = [RunFolder(Path(name)) for name in ("one", "two")]
    assert comparison_name(names) == "comparison-one-two.html"
    long = [RunFolder(Path(letter * 100)) for letter in "xyz"]
    assert len(comparison_name(long)) < 160
    assert comparison_name(long) != comparison_name(long[::-1])


def run_report(capsys, *argv):
    code = cli.main(["report", *argv])
    return code, *capsys.readouterr()


@pytest.mark.slow
def test_the_command_writes_the_comparison_beside_the_runs_or_to_the_given_file(make_run, capsys):
    scored(make_run, "a", [0.9])
    folder = scored(make_run, "b", [0.98])
    code, out, _ = run_report(capsys, "a", "b")
    assert (code, out) == (0, "comparison: results/comparison-a-b.html, results/comparison-a-b.csv\n")
    assert not folder.report_html.exists()
    code, out, _ = run_report(capsys, "a", "b", "--out", "here.html")
    assert (code, out) == (0, "comparison: here.html, here.csv\n")
    code, _, err = run_report(capsys, "a", "--out", "here")
    assert (code, "for the comparison of several runs" in err) == (2, True)


def test_json_is_printed_for_one_run_and_for_several_and_nothing_is_written(make_run, capsys):
    folder = make_run([COMPLETED, STOPPED], finished=True, name="a")
    scored(make_run, "b", [0.98])
    before = sorted(path.name for path in folder.path.iterdir())
    one = json.loads(run_report(capsys, "a", "--json")[1])
    assert (one["run"], one["winner"]["trial"], one["cost"]["trials_by_status"]) == ("a", 0, {"completed": 1, "stopped": 1})
    both = json.loads(run_report(capsys, "a", "b", "--json")[1])
    assert [run["winner"]["accuracy"] for run in both["runs"]] == [one["winner"]["accuracy"], 0.98]
    assert both["settings_that_differ"]["search.samples"] == {"A": "2", "B": "1"}
    assert sorted(path.name for path in folder.path.iterdir()) == before
