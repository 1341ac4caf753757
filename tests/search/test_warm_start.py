"""Earlier runs that a search learns from: which are taken, which are refused, and what stays of them in the new run."""

import json

import pytest

from digit_search.config.loading import load_settings, to_toml
from digit_search.errors import ConfigError, RunFolderError
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from digit_search.search.warm_start import load_warm_start
from tests.event_log import MadeUpLog

STATUSES = (TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED, TrialStatus.INTERRUPTED)


def make_run(results, name, *assignments, fingerprint="same", statuses=STATUSES) -> RunFolder:
    """A run with one trial of each status."""
    folder = RunFolder(results / name)
    folder.path.mkdir()
    folder.config.write_text(to_toml(load_settings(None, assignments)))
    folder.environment.write_text(json.dumps({"versions": {}, "data": {"train_fingerprint": fingerprint, "test_fingerprint": ""}}))
    log = MadeUpLog(folder.events)
    log.phase("search", at=1.0)
    for trial, status in enumerate(statuses):
        log.trial_started(trial, TrialParams(lr=0.001 * (trial + 1)), trial, TrialOrigin.SUGGESTED, at=1.0)
        log.epoch(trial, EpochMetrics(1, 1.0, 0.4, 1.1, 0.5, 0.01, 100, 2.0, 0.9, 0.6), "cpu", "host", at=2.0)
        log.trial_ended(trial, status, at=3.0)
    return folder


def load(results, *names, assignments=(), fingerprint="same", said=None):
    settings = load_settings(None, assignments, {"search.warm_start": list(names)})
    return load_warm_start(settings, results, fingerprint, ([] if said is None else said).append)


def test_the_finished_trials_of_each_run_are_taken_and_the_settings_name_its_folder(tmp_path):
    make_run(tmp_path, "a"), make_run(tmp_path, "b", "seed=3", "search.asha.max_epochs=3", statuses=STATUSES[:1])
    said = []
    settings, trials = load(tmp_path, "a", str(tmp_path / "b"), said=said)
    assert [(earlier.run, earlier.record.trial, earlier.record.status) for earlier in trials] == [
        ("a", 0, "completed"),
        ("a", 1, "stopped"),
        ("b", 0, "completed"),
    ]
    assert settings.search.warm_start == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert said == [f"warm start: 2 finished trials of {tmp_path / 'a'}", f"warm start: 1 finished trial of {tmp_path / 'b'}"]


def test_what_was_taken_is_in_the_new_runs_events_so_that_the_earlier_run_may_go(tmp_path):
    make_run(tmp_path, "a")
    _, trials = load(tmp_path, "a")
    log = MadeUpLog(tmp_path / "events.jsonl")
    for earlier in trials:
        log.warm_trial(earlier, at=1.0)
    assert load_state(tmp_path / "events.jsonl").warm == trials
    assert load_state(tmp_path / "events.jsonl").trials == ()


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("search.space.step_size.high=9", r"search\.space\.step_size: .*'high': 7.* there, .*'high': 9.* here"),
        ("search.space.weight_decay={low=0.0, high=0.1}", r"search\.space\.weight_decay: not set there, .* here"),
        ("training.label_smoothing=0.1", r"training\.label_smoothing: 0\.0 there, 0\.1 here"),
        ("training.ema_half_life_epochs=0", r"training\.ema_half_life_epochs: 0\.25 there, 0\.0 here"),
        ("data.validation_fraction=0.2", r"data\.validation_fraction: 0\.1 there, 0\.2 here"),
        ("search.reports_per_epoch=3", r"search\.reports_per_epoch: 1 there, 3 here"),
    ],
)
def test_a_run_whose_scores_cannot_be_compared_is_refused_with_what_differs(tmp_path, assignment, line):
    make_run(tmp_path, "a")
    with pytest.raises(RunFolderError, match=line):
        load(tmp_path, "a", assignments=[assignment])


def test_a_run_on_other_digits_is_refused(tmp_path):
    make_run(tmp_path, "a", fingerprint="other")
    with pytest.raises(RunFolderError, match=r"expected a run on the same train\.csv, found one on another \(fingerprint other"):
        load(tmp_path, "a")


def test_a_run_named_twice_without_finished_trials_or_not_there_is_refused(tmp_path):
    make_run(tmp_path, "a"), make_run(tmp_path, "empty", statuses=STATUSES[2:])
    with pytest.raises(ConfigError, match="expected each run once"):
        load(tmp_path, "a", str(tmp_path / "a"))
    with pytest.raises(RunFolderError, match="expected a run with finished trials, found none"):
        load(tmp_path, "empty")
    with pytest.raises(RunFolderError, match="expected the name of a run"):
        load(tmp_path, "nowhere")
