import json
from dataclasses import replace

from digit_search.records import EarlierTrial, EpochMetrics, RetrainRecord, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.report.run_data import load_run_data
from digit_search.report.summary import summarize
from digit_search.report.wording import against_baseline, against_runner_up, cost_rows, final_model_lines, headline, what_was_not_done
from digit_search.run.state import load_state
from tests.event_log import MadeUpLog

COMPLETED, STOPPED, FAILED = TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED


def summary_of(folder):
    run = load_run_data(folder)
    return run, summarize(run)


def log_scores(folder, accuracies, first_origin=TrialOrigin.BASELINE):
    log = MadeUpLog(folder.events)
    for trial, accuracy in enumerate(accuracies):
        log.trial_started(trial, TrialParams(), trial, first_origin if trial == 0 else TrialOrigin.SUGGESTED, 100.0)
        log.epoch(trial, EpochMetrics(1, 1, 0.5, 0.1, accuracy, 0.1, 3600, 10.0), "cpu", "n", 110.0)
        log.trial_ended(trial, COMPLETED, 111.0)


def test_a_clear_winner_is_more_than_chance_and_a_close_second_is_tied(make_run):
    folder = make_run()
    log_scores(folder, [0.9, 0.98, 0.975])
    _, summary = summary_of(folder)
    assert headline(summary).startswith("Trial 1 has the best validation accuracy of 3 trials: it classifies 98.00")
    assert "8.00 percentage points less. On 400 digits that is more than chance explains." in against_baseline(summary)
    assert "0.50 percentage points less. On 400 digits chance may explain this difference: they are tied." in against_runner_up(summary)
    assert summary.tied_trials == (2,)
    assert headline(summary).endswith("correctly (95\N{NO-BREAK SPACE}% interval 96.1–99.0\N{NO-BREAK SPACE}%), tied with trial 2.")


def test_a_baseline_can_be_the_winner(make_run):
    folder = make_run()
    log_scores(folder, [0.99, 0.9])
    assert "found nothing better" in against_baseline(summary_of(folder)[1])


def test_without_the_number_of_digits_no_verdict_is_given(make_run):
    folder = make_run()
    folder.environment.unlink()
    log_scores(folder, [0.9, 0.98])
    run, summary = summary_of(folder)
    assert summary.winner.bounds is None
    assert "It is unknown whether that is more than chance" in against_baseline(summary)
    assert any("environment.json is missing" in line for line in what_was_not_done(run, summary))


def test_a_run_without_a_baseline_says_why(make_run):
    folder = make_run()
    folder.config.write_text("[search]\nbaseline = false\n")
    log_scores(folder, [0.9], TrialOrigin.SUGGESTED)
    run, summary = summary_of(folder)
    assert summary.baseline is None
    assert any("search.baseline is off" in line for line in what_was_not_done(run, summary))


def test_in_a_finished_and_retrained_run_nothing_is_missing(make_run):
    run, summary = summary_of(make_run([COMPLETED, COMPLETED, STOPPED], finished=True))
    assert summary.finished
    assert what_was_not_done(run, summary) == []


def test_the_cost_counts_trials_epochs_and_the_retrainings_images(make_run):
    cost = summary_of(make_run([COMPLETED, STOPPED, FAILED], finished=True))[1].cost
    assert cost.trials_by_status == {"completed": 1, "stopped": 1, "failed": 1}
    assert (cost.num_epochs, cost.num_images, cost.num_workers) == (8, 3600 * (8 + 6), 2)
    assert cost.wall_seconds == 9001.0 - 990.0


def test_the_wall_time_does_not_include_the_pause_before_a_resume(make_run):
    folder = make_run([COMPLETED])
    before = summary_of(folder)[1].cost.wall_seconds
    log = MadeUpLog(folder.events)
    log.phase("resume", 900_000.0)
    log.phase("search", 900_001.0)
    log.phase("retrain", 900_010.0)
    cost = summary_of(folder)[1].cost
    assert cost.wall_seconds == before + 10
    assert cost.rest_seconds == 900_000 - 990 - before


def test_epochs_that_a_retraining_reused_are_not_counted_twice(make_run):
    folder = make_run([COMPLETED, COMPLETED])
    state = load_state(folder.events)
    before = summary_of(folder)[1].cost.num_images
    own = state.trials[1].epochs
    more = replace(own[-1], epoch=6, seconds=7.0)
    record = RetrainRecord(1, state.trials[1].params, 1, (*own, more), 6, 0.95, 0.1, 3600, 400, "cpu", 8.0, 1000)
    MadeUpLog(folder.events).retrained(record, 9000.0)
    _, summary = summary_of(folder)
    assert (summary.final_model.num_epochs, summary.final_model.num_reused_epochs) == (6, 5)
    assert summary.final_model.train_seconds == 5 * 10.5 + 7.0
    assert summary.cost.num_images == before + 3600
    assert "for 6 epochs (1 min 00 s, the first 5 epochs taken from the search)" in final_model_lines(summary)[1].replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_a_finished_run_that_is_retrained_stays_finished(make_run):
    folder = make_run([COMPLETED], finished=True)
    MadeUpLog(folder.events).phase("resume", 9500.0)
    assert summary_of(folder)[1].finished


def test_a_finished_run_that_is_resumed_is_not_finished_any_more(make_run):
    folder = make_run([COMPLETED], finished=True)
    MadeUpLog(folder.events).phase("retrain", 9500.0)
    assert not summary_of(folder)[1].finished


def test_the_submission_is_offered_only_for_kaggles_digits(make_run):
    real = summary_of(make_run([COMPLETED, COMPLETED], finished=True, name="real"))[1]
    sample = summary_of(make_run([COMPLETED, COMPLETED], finished=True, embedded=True, name="sample"))[1]
    assert real.submit_command == ("kaggle competitions submit -c digit-recognizer -f results/real/solution.csv -m 'digit_search real'")
    assert sample.submit_command == ""
    assert real.repeat_command == "python tune_main.py --config results/real/config.toml --name real-again"


def test_before_retraining_there_is_nothing_to_submit(make_run):
    run, summary = summary_of(make_run([COMPLETED]))
    assert summary.submit_command == ""
    assert any("has not been retrained" in line for line in what_was_not_done(run, summary))


def test_a_summary_is_json(make_run):
    tree = summary_of(make_run([COMPLETED, FAILED], finished=True))[1].to_tree()
    assert json.loads(json.dumps(tree))["winner"]["trial"] == 0


def test_the_cost_names_the_runs_of_a_warm_start(make_run):
    folder = make_run()
    for run, trial in (("a", 0), ("a", 1), ("b", 0)):
        MadeUpLog(folder.events).warm_trial(EarlierTrial(run, TrialRecord(trial, TrialStatus.STOPPED, TrialParams(), trial)), at=1.0)
    assert cost_rows(summarize(load_run_data(folder)))[0] == ("Known from the start", "2 finished trials of a, 1 finished trial of b")
