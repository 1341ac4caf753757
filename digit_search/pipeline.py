"""The whole job in order: read, split, search, retrain, predict, report."""

import datetime
import shlex
import time
from collections.abc import Iterable, Iterator
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
from digit_search.records import CORE_PARAM_NAMES, EarlierTrial, RetrainRecord, TrialRecord
from digit_search.report.build import write_report, write_tables
from digit_search.run.active_run import ActiveRun, Say
from digit_search.run.environment import check_dashboard_host, check_same_run, check_same_settings, describe_environment
from digit_search.run.events import EarlierTrialLoaded, EventLog, PhaseStarted, Retrained
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder, delete_checkpoints
from digit_search.run.state import RunState, load_state
from digit_search.search.warm_start import load_warm_start
from digit_search.selection.ranking import best_epoch, ranked, select_best
from digit_search.selection.statistics import accuracy_text, tied
from digit_search.storage.locate import Results, check_new, create


def run(settings: RunSettings, name: str | None, results: Results, say: Say) -> RunFolder:
    """Do the whole job and return the run's folder.

    Raises:
        UserError: before Ray starts or anything is written, if settings or data cannot be used.
        DigitSearchError: if the run failed.
        KeyboardInterrupt: if the user ended it; its text says where the records are and how to resume.
    """
    interrupts = Interrupts()
    name = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S") if name is None else name
    check_new(results, name)
    check_dashboard_host(settings.ray)
    with interrupts.caught():
        digits, split = _read(settings, say)
        settings, warm = load_warm_start(settings, results, digits.train_fingerprint, say)
        folder = create(results, name)
        with folder.locked():
            settings = _begin(settings, folder, digits, split, warm)
            with interrupts.bounded(_farewell(folder)), _resumable(folder):
                say(f"run: {folder.display_path()}")
                _search_retrain_report(ActiveRun(settings, folder, say, interrupts), digits, split)
    return folder


def resume(folder: RunFolder, say: Say, *, force: bool) -> None:
    """Continue a run wherever it was interrupted. A finished run is left as it is.

    Raises:
        UserError: if the data, the settings, or (unless `force`) the libraries' versions, are no longer the run's.
        DigitSearchError: if the run failed.
        KeyboardInterrupt: if the user ended it again.
    """
    interrupts = Interrupts()
    with interrupts.caught(), folder.locked(), interrupts.bounded(_farewell(folder)), _resumable(folder):
        if "done" in load_state(folder.events).phases:
            say(f"{folder.display_path()} is finished: {folder.display_path(folder.report_html)}")
            return
        settings = load_settings(folder.config)
        digits, split = _read(settings, say)
        check_same_settings(folder.environment, settings)
        check_same_run(folder.environment, digits, force=force)
        folder.delete_temporary_files()
        active = ActiveRun(settings, folder, say, interrupts)
        active.start_phase("resume")
        say(f"resuming {folder.display_path()}")
        _search_retrain_report(active, digits, split)


def _search_retrain_report(run: ActiveRun, digits: Digits, split: RowSplit) -> None:
    """Everything that is left of a run after its digits were read. If it ends early, its tables are up to date if the disk allows it."""
    try:
        _go_through_phases(run, digits, split)
    except (KeyboardInterrupt, SearchError, StorageError):
        with suppress(StorageError):
            write_tables(run.folder, run.state)
        raise


def _go_through_phases(run: ActiveRun, digits: Digits, split: RowSplit) -> None:
    """A phase begins when the one before is over, so a resumed run repeats none."""
    started_at = time.monotonic()
    folder, state = run.folder, run.state
    if "retrain" not in state.phases:
        run.start_phase("search")
        _search(run, digits, split, started_at)
        run.start_phase("retrain")
    run.interrupts.check()
    if "report" not in state.phases:
        _train_the_best(run, digits, split)
        run.start_phase("report")
    run.interrupts.check()
    folder.keep_checkpoints((record.trial for record in state.trials), ())
    # The report of the finished run is written before the event says that it is finished: a crash in between costs only this step.
    done = PhaseStarted(name="done")
    write_report(folder, state.after(done))
    run.record(done)
    minutes, seconds = divmod(time.monotonic() - started_at, 60)
    run.say(f"done in {minutes:.0f} min {seconds:.0f} s: {folder.display_path(folder.report_html)}")


def _search(run: ActiveRun, digits: Digits, split: RowSplit, started_at: float) -> None:
    # Ray and its libraries take seconds to import, so bad data or settings are reported before that.
    from digit_search.search.stage import search_trials

    search_trials(run, digits.train, split, started_at)


def _train_the_best(run: ActiveRun, digits: Digits, split: RowSplit) -> None:
    """Choose the winner and deliver its weights and predictions."""
    state, settings = run.state, run.settings
    write_tables(run.folder, state)
    best = select_best(state.trials, settings.search.rank_by)
    _say_best(state, settings.search.rank_by, len(split.validation), run.say)
    if settings.retrain.confirm > 1:
        run.folder.keep_checkpoints((record.trial for record in state.trials), ())
        from digit_search.final_model.confirm import confirm_best

        _say_final_model(run, confirm_best(run, digits, split))
    else:
        run.folder.keep_checkpoints((record.trial for record in state.trials), {best.trial})
        _retrain(run, digits, split, best)


def _say_best(state: RunState, rank_by: str, num_validation: int, say: Say) -> None:
    """Name the best trial, and those that it does not clearly beat."""
    scores = [(record.trial, best_epoch(record, rank_by).scored_accuracy) for record in ranked(state.trials, rank_by)]
    trial, accuracy = scores[0]
    level = sorted(other for other, score in scores[1:] if tied(score, accuracy, num_validation))
    tie = f"; tied with trial{'s' if len(level) > 1 else ''} {', '.join(map(str, level))}" if level else ""
    say(f"best: trial {trial}, validation accuracy {accuracy_text(accuracy, num_validation)}{tie}")


@contextmanager
def _resumable(folder: RunFolder) -> Iterator[None]:
    """Say how to resume a run that ends early."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_farewell(folder)) from interrupt
    except (SearchError, StorageError) as error:
        # A SearchError also where the disk is full: that is not the user's mistake.
        raise SearchError(f"{error}\nResume with: {_resume_command(folder)}") from error
    except ResourceError as error:
        raise ResourceError(f"{error}\nResume with: {_resume_command(folder)}") from error


def _resume_command(folder: RunFolder) -> str:
    return f"python tune_main.py resume {shlex.quote(folder.display_path())}"


def _farewell(folder: RunFolder) -> str:
    """What to tell a user who interrupted the run."""
    return f"what was recorded is in {folder.display_path()}; resume with: {_resume_command(folder)}"


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


def _begin(settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, warm: Iterable[EarlierTrial]) -> RunSettings:
    """Write the run's settings and environment into its folder; return the settings as resolved."""
    data_folder = "sample" if digits.source.embedded else str(digits.source.folder.resolve())
    resolved = settings.model_copy(update={"data": settings.data.model_copy(update={"dir": data_folder})})
    write_atomically(folder.environment, describe_environment(resolved, digits, split))
    # Another process may have died at this point.
    folder.events.unlink(missing_ok=True)
    log = EventLog(folder.events)
    for earlier in warm:
        log.append(EarlierTrialLoaded(run=earlier.run, record=earlier.record))
    log.append(PhaseStarted(name="read"))
    # Last: a folder with a config.toml is a run.
    write_atomically(folder.config, to_toml(resolved))
    return resolved


def _retrain(run: ActiveRun, digits: Digits, split: RowSplit, record: TrialRecord) -> RetrainRecord:
    """Train the trial's parameters again from its seed, keep the weights with the lowest validation loss, and predict."""
    from digit_search.final_model.retrain import retrain_and_predict

    values = ", ".join(f"{name} {getattr(record.params, name):g}" for name in CORE_PARAM_NAMES)
    run.say(f"retraining trial {record.trial}: {values}")
    retrained = retrain_and_predict(run, digits, split, record)
    run.record(Retrained(record=retrained))
    delete_checkpoints(run.folder.retraining)
    with suppress(OSError):  # What a confirmation left there stays.
        run.folder.retraining.rmdir()
    _say_final_model(run, retrained)
    return retrained


def _say_final_model(run: ActiveRun, retrained: RetrainRecord) -> None:
    validated = accuracy_text(retrained.val_accuracy, retrained.num_validation)
    written = f"{run.folder.display_path(run.folder.weights)}, {run.folder.display_path(run.folder.solution)}"
    run.say(f"weights of epoch {retrained.best_epoch:g}, with the lowest validation loss: validation accuracy {validated}; {written}")
    if retrained.test_accuracy is not None:
        run.say(f"solution.csv against its known answers: accuracy {accuracy_text(retrained.test_accuracy, retrained.num_test)}")


def retrain_run(folder: RunFolder, trial: int | None, max_epochs: int | None, say: Say) -> RetrainRecord:
    """Train the best or the named trial of a finished or interrupted run again; new weights, solution.csv and report.

    Raises:
        UserError: if there is no such trial, or the data are no longer the run's.
    """
    interrupts = Interrupts()
    with interrupts.caught(), interrupts.bounded(""), folder.locked():
        settings = load_settings(folder.config, flags={"retrain.max_epochs": max_epochs})
        if not folder.events.is_file():
            raise RunFolderError(f"{folder.display_path(folder.events)}: expected the events of a run, found no file")
        active = ActiveRun(settings, folder, say, interrupts)
        record = _trial_to_retrain(active, trial)
        digits, split = _read(settings, say)
        check_same_run(folder.environment, digits, force=True)
        active.start_phase("resume")
        # Of a retraining that was interrupted, which may be another trial's.
        delete_checkpoints(folder.retraining)
        retrained = _retrain(active, digits, split, record)
        write_report(folder, active.state)
    say(f"report: {folder.display_path(folder.report_html)}")
    return retrained


def _trial_to_retrain(run: ActiveRun, trial: int | None) -> TrialRecord:
    """The named trial, else the one with the best mean of its fresh trainings, else the best."""
    state = run.state
    trial = state.confirmed if trial is None else trial
    if trial is None:
        return select_best(state.trials, run.settings.search.rank_by)
    matches = [record for record in state.trials if record.trial == trial]
    if not matches:
        raise RunFolderError(f"{run.folder.display_path()}: expected a trial from 0 to {len(state.trials) - 1}, found --trial {trial}")
    return matches[0]


def predict_file(model: Path, test: Path, out: Path, max_csv_bytes: int, say: Say) -> None:
    """Predict the digits of a CSV of at most `max_csv_bytes` with saved weights, and write `ImageId,Label`.

    Raises:
        UserError: if the CSV or the weights cannot be used, or `out` cannot be written.
    """
    table = read_test(test, max_csv_bytes=max_csv_bytes)
    from digit_search.final_model.export import predict_with_weights

    predict_with_weights(model, table, out, say)
