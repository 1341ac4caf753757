"""The folder of a run: the paths of its files, and how it is created and found."""

import contextlib
import os
import re
from collections.abc import Container, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from digit_search.errors import RunFolderError
from digit_search.files.atomic_io import TEMPORARY_SUFFIX, delete_temporary_files
from digit_search.run.lock import LOCK, locked_folder

_JOURNAL_LOCK = "study.journal.lock"
"""optuna-dashboard makes this link while it writes, and leaves it when it is killed. It points to no file, and we never open it."""
FILES_BEFORE_CONFIG = frozenset({LOCK, "environment.json", "events.jsonl"})
"""The files that a run writes before its config.toml, which makes a folder a run."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_run_name(name: str) -> str:
    """Return the name. Raises RunFolderError if it has other than the allowed characters, or could lead out of the results folder."""
    if not _NAME.fullmatch(name):
        raise RunFolderError(f"--name {name!r}: expected 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit")
    return name


class _InFolder:
    """An attribute of `RunFolder`: the path of the file or folder with this name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run's files. They need not exist."""

    path: Path
    is_local = True
    """Whether the run is kept in `path`; otherwise `path` is the working copy of a run in an object store."""

    config = _InFolder("config.toml")
    environment = _InFolder("environment.json")
    events = _InFolder("events.jsonl")
    """What happened: one JSON object per line, appended at once. The tables and the report are made from it."""
    trials = _InFolder("trials.csv")
    epochs = _InFolder("epochs.csv")
    rungs = _InFolder("rungs.csv")
    best = _InFolder("best.toml")
    weights = _InFolder("DigitRecognitionResNet18.pt")
    weights_note = _InFolder("DigitRecognitionResNet18.txt")
    validation = _InFolder("validation.arrow")
    """The final model's predictions on the validation rows, and their pixels: an Arrow IPC file for the report."""
    solution = _InFolder("solution.csv")
    report_html = _InFolder("report.html")
    report_md = _InFolder("report.md")
    study = _InFolder("study.journal")
    log = _InFolder("search.log")
    """The log messages of Ray and Optuna."""
    tune = _InFolder("tune")
    """A folder with a folder per trial."""
    retraining = _InFolder("retraining")
    """The folder of the retraining's checkpoints while it runs."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def location(self) -> str:
        """The absolute path or the URI of the run, by whatever path it was opened."""
        return str(self.path.resolve())

    def display_path(self, file: Path | None = None) -> str:
        """The path or URI of the run, or of this file of it, as messages show it."""
        return str(file or self.path)

    def files(self) -> tuple[Path, ...]:
        """All files of the run that are directly in `path`."""
        of_search = (self.config, self.environment, self.events, self.study, self.log, self.trials, self.epochs, self.rungs, self.best)
        return (*of_search, self.weights, self.weights_note, self.validation, self.solution, self.report_html, self.report_md)

    @property
    def trials_location(self) -> str:
        """The path or URI where the workers keep the trials' checkpoints. Every node must reach it."""
        return str(self.tune.resolve())

    def trial(self, trial: int) -> Path:
        """The folder of a trial's checkpoints, errors and TensorBoard events."""
        return self.tune / trial_name(trial)

    def confirming(self, trial: int, seed: int) -> Path:
        """The folder of the checkpoints of a confirmation while it runs: one of the best trials, trained again from this seed."""
        return self.retraining / f"{trial_name(trial)}_{seed}"

    def confirmed_weights(self, trial: int, seed: int) -> Path:
        """The weights of a confirmation, kept until the final model is chosen."""
        return self.retraining / f"{trial_name(trial)}_{seed}.pt"

    def keep_checkpoints(self, trials: Iterable[int], kept: Container[int]) -> None:
        """Delete the checkpoints of these trials, except of those in `kept`. A checkpoint takes about 100 MB."""
        for trial in trials:
            if trial not in kept:
                delete_checkpoints(self.trial(trial))

    def delete_temporary_files(self) -> None:
        """Delete the half-written files of killed processes. Call this with the lock held, before any worker writes."""
        for folder in (self.path, self.retraining, *self.retraining.glob("*/"), *self.tune.glob("*/")):
            delete_temporary_files(folder)

    def is_incomplete(self) -> bool:
        """Whether the run stopped before it began: the folder has only the files that are written before config.toml."""
        if not self.path.is_dir() or self.path.is_symlink():
            return False
        return all(path.name in FILES_BEFORE_CONFIG or path.name.endswith(TEMPORARY_SUFFIX) for path in self.path.iterdir())

    def locked(self) -> AbstractContextManager[None]:
        """Be the only process that works on this run. Raises RunFolderError if another one does."""
        return locked_folder(self.path)


def trial_name(trial: int) -> str:
    """The name of a trial in file names and on Ray's dashboard."""
    return f"trial_{trial:04d}"


def checkpoint_files(folder: Path) -> tuple[Path, Path]:
    """The two files that a training writes alternately."""
    return folder / "checkpoint_0.pt", folder / "checkpoint_1.pt"


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints in the folder, also half-written ones."""
    for path in checkpoint_files(folder):
        path.unlink(missing_ok=True)
    delete_temporary_files(folder)


def check_new_run(results: Path, name: str) -> RunFolder:
    """Return the folder that a new run of this name would have. Nothing is created.

    Raises RunFolderError if the name is not allowed or is taken, or `results` is a file.
    """
    folder = RunFolder(results / check_run_name(name))
    if results.exists() and not results.is_dir():
        raise RunFolderError(f"--results {results}: expected a folder, found a file")
    if folder.path.exists():
        if not folder.is_incomplete():
            raise RunFolderError(
                f"{folder.path}: there is a run of this name already; choose another --name, or continue that run with: "
                f"python tune_main.py resume {name}"
            )
        _check_only_files(folder.path)
    return folder


def create_run_folder(results: Path, name: str) -> RunFolder:
    """Create the folder of a new run. Raises RunFolderError as `check_new_run` does, or if the folder cannot be created."""
    folder = check_new_run(results, name)
    try:
        results.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir(exist_ok=folder.is_incomplete())
    except OSError as error:
        raise RunFolderError(f"{folder.path}: cannot be created: {error.strerror}; choose another --results") from error
    return folder


def _check_only_files(folder: Path) -> None:
    """Raise RunFolderError if a run's folder, which may come from a stranger, has anything but files and folders in it.

    We would write through a link to a place outside the folder, and wait at a pipe.
    """
    pending = [os.fspath(folder)]
    while pending:
        # A process that works on the run creates and deletes files meanwhile.
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name.startswith(_JOURNAL_LOCK):
                    continue
                elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                    found = "a link" if entry.is_symlink() else "a pipe or a device"
                    raise RunFolderError(f"{entry.path}: expected only files and folders in a run's folder, found {found}; remove it")


def open_run_folder(run: str, results: Path) -> RunFolder:
    """Find a run by its name in the results folder, or by its path.

    Raises RunFolderError if there is no such run, or something in its folder is neither a file nor a folder.
    """
    for path in (results / run, Path(run)):
        folder = RunFolder(path)
        try:
            if run and folder.config.is_file():
                _check_only_files(path)
                return folder
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read: {error.strerror}. Fix its permissions.") from error
    raise RunFolderError(
        f"{run or repr(run)}: expected the name of a run in {results}, or a run's folder; there is no {results / run}/config.toml"
    )
