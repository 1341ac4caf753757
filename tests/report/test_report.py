"""The whole report, for finished runs and for what is left of interrupted ones."""

import hashlib
import itertools
import re
import shutil
from base64 import b64encode

import pytest

from digit_search.errors import RunFolderError
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.report.build import write_report, write_tables
from digit_search.report.page import drawn_trials
from digit_search.report.run_data import load_run_data
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from digit_search.selection.ranking import ranked
from tests.event_log import MadeUpLog

COMPLETED, STOPPED, FAILED, INTERRUPTED, RUNNING = TrialStatus
EVIL = "=1+1 </script><script>alert(1)</script><img src=x onerror=alert(2)> `a` | b \x00\x1b[31m \ud800 \u202e & \"q\" 'r' $x^{"
SECTIONS = ["result", "gaps", "trials", "curves", "search", "model", "details", "made"]
MAX_BYTES = 3_000_000


def check_page(page, html):
    """What is true for the page of every run."""
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    targets = [attributes["href"][1:] for _, attributes in page.tags if (attributes.get("href") or "").startswith("#")]
    assert set(targets) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert not page.all("link")
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(html.encode()) < MAX_BYTES


def report_of(folder, read_page):
    write_report(folder)
    page = read_page(folder.report_html)
    check_page(page, folder.report_html.read_text())
    return page


def test_a_finished_run_has_all_files_and_all_sections(finished_run, read_page):
    page = read_page(finished_run.report_html)
    check_page(page, finished_run.report_html.read_text())
    paths = (finished_run.trials, finished_run.epochs, finished_run.rungs, finished_run.best, finished_run.report_md)
    assert all(path.exists() for path in paths)
    for text in ("kaggle competitions submit", "Confusion matrix", "95 % interval", "97.00\N{NO-BREAK SPACE}% of 1,000 test digits"):
        assert text in page.text
    # Comparison, learning curves, history by trials and images, four parameters, parallel coordinates, timeline, retraining, model, and a
    # small curve a trial.
    assert len(page.all("svg")) == 1 + 1 + 2 + 4 + 1 + 1 + 2 + 2 + 5
    assert len(page.all("details")) == 5 + 1
    assert "Embedded sample" not in page.text


def test_the_embedded_sample_is_announced_and_there_is_no_command_to_submit_it(make_run, read_page):
    folder = make_run([COMPLETED], embedded=True)
    folder.solution.write_text("ImageId,Label\n1,2\n")
    page = report_of(folder, read_page)
    assert "Embedded sample." in page.text
    assert "kaggle competitions submit" not in page.text
    assert "**Embedded sample.**" in folder.report_md.read_text()


def log_start_without_report(folder):
    MadeUpLog(folder.events).trial_started(0, TrialParams(), 0, TrialOrigin.BASELINE, 100.0)


def log_part_of_an_epoch(folder):
    log_start_without_report(folder)
    MadeUpLog(folder.events).epoch(0, EpochMetrics(0.25, 9.0, 0.1, 1e9, 0.0, 0.1, 900, 2.0), "cpu", "n", 110.0)


def log_perfect_trials(folder):
    log_start_without_report(folder)
    for trial in range(3):
        MadeUpLog(folder.events).trial_started(trial, TrialParams(), 0, TrialOrigin.SUGGESTED, 0.0)
        MadeUpLog(folder.events).epoch(trial, EpochMetrics(1, 0.0, 1.0, 0.0, 1.0, 0.1, 900, 2.0), "", "", 0.0)


@pytest.mark.parametrize(
    ("log", "with_files"),
    [(log_start_without_report, True), (log_part_of_an_epoch, True), (log_perfect_trials, True), (log_perfect_trials, False)],
)
def test_a_run_that_has_just_begun_has_a_report(make_run, read_page, log, with_files):
    folder = make_run()
    log(folder)
    if not with_files:
        folder.config.unlink()
        folder.environment.unlink()
    page = report_of(folder, read_page)
    assert "This run is not finished" in page.text
    assert ("config.toml could not be read" in page.text) != with_files


def test_a_folder_without_events_has_a_report(make_run, read_page):
    folder = make_run()
    folder.events.unlink()
    page = report_of(folder, read_page)
    assert "events.jsonl is missing" in page.text
    assert "no trial has begun" in page.text
    assert not folder.best.exists()


def test_a_run_whose_trials_all_failed_says_why(make_run, read_page):
    folder = make_run([FAILED] * 3)
    page = report_of(folder, read_page)
    assert "no trial of 3 can be chosen: 3 failed\n  ValueError: the loss is nan" in page.text
    assert "no trial of 3 can be chosen" in folder.report_md.read_text()


def test_a_run_in_progress_shows_running_trials(make_run, read_page):
    page = report_of(make_run([COMPLETED, RUNNING]), read_page)
    assert "1 trial was running when this report was made" in page.text
    assert "the winner has not been retrained" in page.text


@pytest.mark.slow
def test_broken_predictions_are_left_out_and_the_report_says_so(make_run, read_page):
    folder = make_run([COMPLETED, COMPLETED], finished=True)
    folder.validation.write_bytes(b"rubbish")
    page = report_of(folder, read_page)
    assert "validation predictions are left out" in page.text
    assert "Confusion matrix" not in page.text


def test_broken_events_are_an_error(make_run):
    folder = make_run([COMPLETED])
    folder.events.write_text("rubbish\n")
    with pytest.raises(RunFolderError, match="line 1: expected an event"):
        write_report(folder)


@pytest.mark.slow
def test_hostile_text_stays_text(make_run, read_page):
    folder = make_run([COMPLETED, COMPLETED], finished=True)
    log = MadeUpLog(folder.events)
    log.note(EVIL, 1.0)
    log.trial_started(2, TrialParams(), 2, TrialOrigin.SUGGESTED, 100.0)
    log.epoch(2, EpochMetrics(1, 1.0, 0.5, 0.1, 0.9, 0.1, 900, 2.0), EVIL, EVIL, 110.0)
    log.trial_ended(2, FAILED, 111.0, EVIL)
    folder.environment.write_text('{"data": {"embedded": false}, "<script>": ["</script><script>alert(3)</script>"], "versions": 3}')
    page = report_of(folder, read_page)
    assert len(page.all("script")) == 1
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "<script>alert(1)</script>" in page.text
    text = folder.report_md.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    for content in (page.text, text, folder.trials.read_text()):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", content)


def test_the_page_allows_no_network_and_only_its_own_script(finished_run, read_page):
    page = read_page(finished_run.report_html)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script[^>]*>(.*?)</script>", finished_run.report_html.read_text(), re.DOTALL)[1]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_table_sorts_by_numbers_and_filters_by_status(finished_run, read_page):
    page = read_page(finished_run.report_html)
    assert [attributes["value"] for attributes in page.all("input")] == ["completed", "stopped", "failed", "interrupted"]
    rows = [attributes["data-status"] for attributes in page.all("tr") if "data-status" in attributes]
    assert sorted(rows) == ["completed", "completed", "failed", "interrupted", "stopped"]
    heads = [head for head in page.all("th") if head.get("scope") == "col" and head.get("class") in ("number", "text")]
    assert len(heads) == len([button for button in page.all("button") if button["type"] == "button"]) == 14
    assert any(attributes.get("data-value") == "52.5" for attributes in page.all("td")), "52 s sorts by a number"


@pytest.mark.slow
def test_the_same_files_give_the_same_report(finished_run, tmp_path):
    again = RunFolder(shutil.copytree(finished_run.path, tmp_path / "demo"))
    write_report(again)
    for name in ("trials.csv", "epochs.csv", "rungs.csv", "best.toml"):
        assert (again.path / name).read_bytes() == (finished_run.path / name).read_bytes()
    # The commands name the folder.
    for name in ("report.md", "report.html"):
        there = (finished_run.path / name).read_text().replace(str(finished_run.path), str(again.path))
        assert (again.path / name).read_text() == there


def test_writing_only_the_tables_writes_no_page(make_run):
    folder = make_run([COMPLETED, RUNNING])
    write_tables(folder)
    assert folder.trials.read_text().count("\n") == 3
    assert folder.rungs.read_text().splitlines()[1] == "1,0,-1.0,passed"
    assert not folder.report_html.exists()


@pytest.mark.slow
def test_of_very_many_trials_only_the_best_have_details(make_run, read_page, monkeypatch):
    monkeypatch.setattr("digit_search.report.trials.MAX_DETAILED", 10)
    folder = make_run([(COMPLETED, STOPPED, STOPPED, STOPPED)[trial % 4] for trial in range(100)])
    page = report_of(folder, read_page)
    assert "The 10 best trials" in page.text
    assert len([attributes for attributes in page.all("details") if "id" in attributes]) == 10
    assert len([attributes for attributes in page.all("tr") if "data-status" in attributes]) == 100
    assert folder.report_html.stat().st_size < 100 * MAX_BYTES / 500


@pytest.mark.slow
def test_the_table_and_the_pictures_of_a_huge_run_are_cut_and_the_page_says_so(make_run, read_page, monkeypatch):
    monkeypatch.setattr("digit_search.report.trials.MAX_ROWS", 20)
    monkeypatch.setattr("digit_search.report.page.MAX_DRAWN", 30)
    monkeypatch.setattr("digit_search.report.page.NUM_BEST_DRAWN", 5)
    folder = make_run([COMPLETED] * 60)
    page = report_of(folder, read_page)
    assert "The first 20 of 60 trials; trials.csv has all of them." in page.text
    assert len([attributes for attributes in page.all("tr") if "data-status" in attributes]) == 20
    drawn = drawn_trials(load_run_data(folder))
    assert len(drawn) <= 30
    assert f"The pictures show {len(drawn)} of 60 trials." in page.text
    assert {0, *(record.trial for record in ranked(load_run_data(folder).state.trials)[:5])} <= {record.trial for record in drawn}
    assert "too many trials for a timeline" in page.text


@pytest.mark.slow
def test_a_state_that_the_caller_has_is_not_read_again(make_run, read_page):
    folder = make_run([COMPLETED, RUNNING])
    state = load_state(folder.events)
    folder.events.write_text("rubbish\n")
    write_report(folder, state)
    assert "1 trial was running when this report was made" in read_page(folder.report_html).text
    folder.trials.unlink()
    write_tables(folder, state)
    assert folder.trials.read_text().count("\n") == 3
