"""The best trials trained again with fresh seeds: who wins, what a crash costs, and what is exported."""

import csv
import tomllib

import pytest

import digit_search.final_model.confirm as confirming
from digit_search.config.loading import load_settings, to_toml
from digit_search.data.load import load_digits
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.errors import TrialError
from digit_search.final_model.confirm import confirm_best, fresh_seed
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.report.build import write_report
from digit_search.run.active_run import ActiveRun
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from tests.event_log import MadeUpLog

pytestmark = pytest.mark.slow

SETTINGS = load_settings(
    None, ["retrain.confirm=2", "retrain.confirm_seeds=2", "retrain.max_epochs=1", "training.ema_half_life_epochs=0", "search.samples=3"]
)


def finished_search(parent, tiny_data):
    """A finished search of three trials, whose best two are 2 and 1; its digits and their split."""
    folder = RunFolder(parent / "run")
    folder.path.mkdir()
    folder.config.write_text(to_toml(SETTINGS))
    log = MadeUpLog(folder.events)
    for trial, (lr, accuracy) in enumerate([(0.01, 0.5), (0.001, 0.6), (0.003, 0.7)]):
        log.trial_started(trial, TrialParams(lr=lr, batch_size=64), trial, TrialOrigin.SUGGESTED, at=1.0)
        log.epoch(trial, EpochMetrics(1, 1.0, 0.4, 1.1, accuracy, lr, 288, 2.0), "cpu", "host", at=2.0)
        log.trial_ended(trial, TrialStatus.COMPLETED, at=3.0)
    digits = load_digits(str(tiny_data), max_csv_bytes=1 << 30)
    return folder, digits, split_rows(label_view(digits.train), validation_fraction=0.1, seed=0)


@pytest.fixture
def run(tmp_path, tiny_data):
    return finished_search(tmp_path, tiny_data)


def confirm(run, messages):
    folder, digits, split = run
    return confirm_best(ActiveRun(SETTINGS, folder, messages.append, Interrupts()), digits, split)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory, tiny_data):
    """A confirmed run, to be read only: its folder, its retraining and the messages."""
    run, messages = finished_search(tmp_path_factory.mktemp("confirmed"), tiny_data), []
    retrained = confirm(run, messages)
    write_report(run[0])
    return run[0], retrained, messages


def test_the_best_mean_of_fresh_trainings_wins_and_its_weights_are_exported(confirmed):
    folder, retrained, messages = confirmed
    history = load_state(folder.events)
    seeds = {trial: [fresh_seed(0, trial, repeat) for repeat in range(2)] for trial in (2, 1)}
    assert [(record.trial, record.seed) for record in history.confirmations] == [(trial, seed) for trial in (2, 1) for seed in seeds[trial]]
    means = {trial: sum(record.val_accuracy for record in history.confirmations if record.trial == trial) for trial in (2, 1)}
    assert history.confirmed == max(means, key=means.get)
    mine = [record for record in history.confirmations if record.trial == history.confirmed]
    assert history.retraining == retrained
    assert (retrained.trial, retrained.val_accuracy) == (history.confirmed, max(record.val_accuracy for record in mine))
    assert len(list(csv.DictReader(folder.solution.open()))) == 40
    assert folder.weights.exists()
    assert not folder.retraining.exists()
    assert any("95 % interval" in line for line in messages)


def test_an_interrupted_confirmation_resumes_and_gives_the_same_weights(run, confirmed, monkeypatch):
    untouched_folder, untouched, _ = confirmed
    train, trained = confirming._train_fresh, []

    def crash_at_third(*given):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(given[-1])
        return train(*given)

    monkeypatch.setattr(confirming, "_train_fresh", crash_at_third)
    with pytest.raises(KeyboardInterrupt):
        confirm(run, [])
    monkeypatch.setattr(confirming, "_train_fresh", lambda *given: (trained.append(given[-1]), train(*given))[1])
    again = confirm(run, [])
    assert len(trained) == len(set(trained)) == 4
    assert (again.trial, again.seed, again.val_loss) == (untouched.trial, untouched.seed, untouched.val_loss)
    assert run[0].weights.read_bytes() == untouched_folder.weights.read_bytes()


def test_a_trial_that_diverges_with_a_fresh_seed_is_out(run, monkeypatch):
    train, messages = confirming._train_fresh, []

    def diverge(*given):
        if given[-1] == fresh_seed(0, 2, 1):
            raise TrialError("the training loss is nan")
        return train(*given)

    monkeypatch.setattr(confirming, "_train_fresh", diverge)
    assert confirm(run, messages).trial == 1
    assert "trial 2 is out: it diverges with a fresh seed (the training loss is nan)" in messages


def test_the_report_and_best_toml_name_the_confirmed_winner_and_the_means(confirmed):
    folder, _, _ = confirmed
    history = load_state(folder.events)
    report = folder.report_md.read_text()
    assert f"Trial {history.confirmed} has the best mean validation accuracy of the 2 best of 3 trials" in report
    assert report.count("trained again with fresh seeds:") == 2
    best = tomllib.loads(folder.best.read_text())
    assert (best["source"]["trial"], best["source"]["num_confirmations"]) == (history.confirmed, 2)
