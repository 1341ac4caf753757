"""The story in order: read, split, search, retrain, predict, report."""

import datetime
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from digit_search.config.loading import load_settings, to_toml
from digit_search.config.settings import RunSettings
from digit_search.data.load import Digits, load_digits
from digit_search.data.reader import read_test
from digit_search.data.split import RowSplit, split_rows
from digit_search.data.table import label_view
from digit_search.errors import ResourceError, RunFolderError, SearchError, StorageError
from digit_search.files.atomic_io import write_atomically
from digit_search.records import EarlierTrial, RetrainRecord, TrialRecord
from digit_search.report.build import write_report, write_tables
from digit_search.run.environment import check_dashboard_host, check_same_run, check_same_settings, describe_environment
from digit_search.run.events import EventLog
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder, delete_checkpoints
from digit_search.run.state import load_state
from digit_search.search.warm_start import load_warm_start
from digit_search.selection.ranking import best_epoch, ranked, select_best
from digit_search.selection.statistics import accuracy_text, tied
from digit_search.storage.locate import Results, check_new, create

Say = Callable[[str], None]


def run(settings: RunSettings, name: str | None, results: Results, say: Say) -> RunFolder:
    """Do the whole job and return the run's folder.

    Raises:
        UserError: before Ray starts or anything is written, if settings or data cannot be used.
        DigitSearchError: if the run failed.
        KeyboardInterrupt: if the user ended it; its text says where the records are and how to go on.
    """
    interrupts = Interrupts()
    name = _default_name() if name is None else name
    check_new(results, name)
    check_dashboard_host(settings.ray)
    with interrupts.caught():
        digits, split = _read(settings, say)
        settings, warm = load_warm_start(settings, results, digits.train_fingerprint, say)
        folder = create(results, name)
        with folder.locked():
            settings = _begin(settings, folder, digits, split, warm)
            with interrupts.bounded(_farewell(folder)), _resumable(folder):
                say(f"run: {folder.shown()}")
                _search_retrain_report(settings, folder, digits, split, interrupts, say)
    return folder


def resume(folder: RunFolder, say: Say, *, force: bool) -> None:
    """Go on with a run wherever it was interrupted. A finished run is left as it is.

    Raises:
        UserError: if the data, the settings, or (unless `force`) the libraries' versions, are no longer the run's.
        DigitSearchError: if the run failed.
        KeyboardInterrupt: if the user ended it again.
    """
    interrupts = Interrupts()
    with interrupts.caught(), folder.locked(), interrupts.bounded(_farewell(folder)), _resumable(folder):
        if "done" in load_state(folder.events).phases:
            say(f"{folder.shown()} is finished: {folder.shown(folder.report_html)}")
            return
        settings = _settings_of(folder)
        digits, split = _read(settings, say)
        check_same_settings(folder.environment, settings)
        check_same_run(folder.environment, digits, force=force)
        folder.delete_temporary_files()
        EventLog(folder.events).phase("resume", at=time.time())
        say(f"going on with {folder.shown()}")
        _search_retrain_report(settings, folder, digits, split, interrupts, say)


def _search_retrain_report(
    settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, interrupts: Interrupts, say: Say
) -> None:
    """All that is left of a run after its digits were read."""
    started_at = time.monotonic()
    events = EventLog(folder.events)
    # Each phase's line is written when the one before is over, so a run that goes on repeats none that it is past.
    if "retrain" not in load_state(folder.events).phases:
        events.phase("search", at=time.time())
        _search(settings, folder, digits, split, started_at, interrupts, say)
        events.phase("retrain", at=time.time())
    interrupts.check()
    if "report" not in load_state(folder.events).phases:
        _train_the_best(settings, folder, digits, split, say)
        events.phase("report", at=time.time())
    interrupts.check()
    folder.keep_checkpoints((record.trial for record in load_state(folder.events).trials), ())
    write_report(folder)
    events.phase("done", at=time.time())
    write_report(folder)
    say(f"done in {_minutes(time.monotonic() - started_at)}: {folder.shown(folder.report_html)}")


def _search(
    settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, started_at: float, interrupts: Interrupts, say: Say
) -> None:
    # Ray and its friends take seconds to import, so bad data or settings are told before.
    from digit_search.search.stage import search_trials

    search_trials(settings, folder, digits, split, started_at, interrupts, say)


def _train_the_best(settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, say: Say) -> None:
    """Choose the winner and hand over its weights and predictions."""
    write_tables(folder)
    records = load_state(folder.events).trials
    best = select_best(records, settings.search.rank_by)
    _tell_best(records, settings.search.rank_by, len(split.validation), say)
    if settings.retrain.confirm > 1:
        folder.keep_checkpoints((record.trial for record in records), ())
        _confirm(settings, folder, digits, split, say)
    else:
        folder.keep_checkpoints((record.trial for record in records), {best.trial})
        _retrain(settings, folder, digits, split, best, settings.retrain.max_epochs, say, resume=True)


def _tell_best(records: Sequence[TrialRecord], rank_by: str, num_validation: int, say: Say) -> None:
    """Name the best trial, and those that it does not clearly beat."""
    scores = [(record.trial, best_epoch(record, rank_by).scored_accuracy) for record in ranked(records, rank_by)]
    trial, accuracy = scores[0]
    level = sorted(other for other, score in scores[1:] if tied(score, accuracy, num_validation))
    tie = f"; tied with trial{'s' if len(level) > 1 else ''} {', '.join(map(str, level))}" if level else ""
    say(f"best: trial {trial}, validation accuracy {accuracy_text(accuracy, num_validation)}{tie}")


@contextmanager
def _resumable(folder: RunFolder) -> Iterator[None]:
    """Tell how to go on where the run ends before its time, and bring its tables up to date as far as the disk lets us."""
    go_on = _go_on(folder)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _write_tables_if_possible(folder)
        raise KeyboardInterrupt(_farewell(folder)) from interrupt
    except (SearchError, StorageError) as error:
        _write_tables_if_possible(folder)
        # Not the user's mistake, even where the disk is full.
        raise SearchError(f"{error}\nGo on with: {go_on}") from error
    except ResourceError as error:
        raise ResourceError(f"{error}\nGo on with: {go_on}") from error


def _go_on(folder: RunFolder) -> str:
    return f"python tune_main.py resume {shlex.quote(folder.shown())}"


def _farewell(folder: RunFolder) -> str:
    """What to tell a user who interrupted the run."""
    return f"what was recorded is in {folder.shown()}; go on with: {_go_on(folder)}"


def _write_tables_if_possible(folder: RunFolder) -> None:
    with suppress(StorageError):
        write_tables(folder)


def _default_name() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def _read(settings: RunSettings, say: Say) -> tuple[Digits, RowSplit]:
    data = settings.data
    digits = load_digits(data.dir, max_csv_bytes=data.max_csv_bytes)
    split = split_rows(
        label_view(digits.train), validation_fraction=data.validation_fraction, seed=settings.seed, file=str(digits.source.train)
    )
    if digits.source.embedded:
        say("NOTE: this run uses the embedded SAMPLE of 5,000 digits; --data DIR takes the folder of Kaggle's train.csv and test.csv.")
    say(
        f"data: {digits.source.folder}: {len(split.train):,} digits to train on, {len(split.validation):,} to validate, "
        f"{digits.test.num_rows:,} to predict"
    )
    return digits, split


def _settings_of(folder: RunFolder, retrain_max_epochs: int | None = None) -> RunSettings:
    """The settings with which a run resumes. Its folder may come from a stranger, so no setting may name a place to write to."""
    return load_settings(folder.config, flags={"retrain.max_epochs": retrain_max_epochs})


def _begin(settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, warm: Iterable[EarlierTrial]) -> RunSettings:
    """Write the run's settings and surroundings into its folder; return the settings as resolved."""
    where = "sample" if digits.source.embedded else str(digits.source.folder.resolve())
    resolved = settings.model_copy(update={"data": settings.data.model_copy(update={"dir": where})})
    write_atomically(folder.environment, describe_environment(resolved, digits, split))
    # Another process may have died at this point.
    folder.events.unlink(missing_ok=True)
    events = EventLog(folder.events)
    for earlier in warm:
        events.warm_trial(earlier, at=time.time())
    events.phase("read", at=time.time())
    # Last: a folder with a config.toml is a run.
    write_atomically(folder.config, to_toml(resolved))
    return resolved


def _retrain(
    settings: RunSettings,
    folder: RunFolder,
    digits: Digits,
    split: RowSplit,
    record: TrialRecord,
    max_epochs: int,
    say: Say,
    *,
    resume: bool,
) -> RetrainRecord:
    """Train the trial's parameters again from its seed, keep the weights of the lowest validation loss, predict."""
    from digit_search.final_model.retrain import retrain_and_predict

    say(f"retraining trial {record.trial}: {', '.join(f'{name} {value:g}' for name, value in _core(record).items())}")
    retrained = retrain_and_predict(settings, folder, digits, split, record, max_epochs, resume=resume)
    EventLog(folder.events).retrained(retrained, at=time.time())
    delete_checkpoints(folder.retraining)
    with suppress(OSError):  # What a confirmation left there stays.
        folder.retraining.rmdir()
    _tell_final_model(folder, retrained, say)
    return retrained


def _confirm(settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, say: Say) -> None:
    """Train the best trials again with fresh seeds; hand over the weights of the one with the best mean."""
    from digit_search.final_model.confirm import confirm_best

    _tell_final_model(folder, confirm_best(settings, folder, digits, split, say), say)


def _tell_final_model(folder: RunFolder, retrained: RetrainRecord, say: Say) -> None:
    validated = accuracy_text(retrained.val_accuracy, retrained.num_validation)
    written = f"{folder.shown(folder.weights)}, {folder.shown(folder.solution)}"
    say(f"weights of epoch {retrained.best_epoch:g}, of the lowest validation loss: validation accuracy {validated}; {written}")
    if retrained.test_accuracy is not None:
        say(f"solution.csv against its known answers: accuracy {accuracy_text(retrained.test_accuracy, retrained.num_test)}")


def _core(record: TrialRecord) -> dict[str, float]:
    params = record.params
    return {"lr": params.lr, "gamma": params.gamma, "step_size": params.step_size, "batch_size": params.batch_size}


def retrain_run(folder: RunFolder, trial: int | None, max_epochs: int | None, say: Say) -> RetrainRecord:
    """Train the best or the named trial of a finished or interrupted run again; new weights, solution.csv and report.

    Raises:
        UserError: if there is no such trial, or the data are not the run's any more.
    """
    interrupts = Interrupts()
    with interrupts.caught(), interrupts.bounded(""), folder.locked():
        settings = _settings_of(folder, max_epochs)
        record = _trial_to_retrain(folder, trial, settings.search.rank_by)
        digits, split = _read(settings, say)
        check_same_run(folder.environment, digits, force=True)
        EventLog(folder.events).phase("resume", at=time.time())
        retrained = _retrain(settings, folder, digits, split, record, settings.retrain.max_epochs, say, resume=False)
        write_report(folder)
    say(f"report: {folder.shown(folder.report_html)}")
    return retrained


def _trial_to_retrain(folder: RunFolder, trial: int | None, rank_by: str) -> TrialRecord:
    """The named trial, else the one with the best mean of its fresh trainings, else the best."""
    history = load_state(folder.events)
    trial = history.confirmed if trial is None else trial
    if trial is None:
        return select_best(history.trials, rank_by)
    found = [record for record in history.trials if record.trial == trial]
    if not found:
        raise RunFolderError(f"{folder.shown()}: expected a trial from 0 to {len(history.trials) - 1}, found --trial {trial}")
    return found[0]


def predict_file(model: Path, test: Path, out: Path, max_csv_bytes: int, say: Say) -> None:
    """Predict the digits of a CSV, of at most so many bytes, with saved weights and write `ImageId,Label`.

    Raises:
        UserError: if the CSV or the weights cannot be used, or `out` cannot be written.
    """
    table = read_test(test, max_csv_bytes=max_csv_bytes)
    from digit_search.final_model.retrain import predict_with_weights

    predict_with_weights(model, table, out, say)
