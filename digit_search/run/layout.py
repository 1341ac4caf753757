"""The folder of a run: what its files are called, who works on it, and how it is made and found."""

import contextlib
import fcntl
import os
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from digit_search.errors import RunFolderError
from digit_search.files.atomic_io import TEMPORARY, delete_temporary_files

_JOURNAL_LOCK = "study.journal.lock"
"""Of optuna-dashboard, while it writes or where it was killed: a link to a name that is none, which nothing of ours opens."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_run_name(name: str) -> str:
    """Return the name if it can be a folder of its own inside the results folder.

    Raises:
        RunFolderError: if it could lead out of there or is no plain name.
    """
    if not _NAME.fullmatch(name):
        raise RunFolderError(f"--name {name!r}: expected 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit")
    return name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of the files of one run. They need not exist."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_local(self) -> bool:
        """Whether the run is kept in `path`; otherwise `path` is the working copy of a run in an object store."""
        return True

    @property
    def location(self) -> str:
        """The absolute path or the URI of the run, whatever name it was opened by."""
        return str(self.path.resolve())

    def display_path(self, file: Path | None = None) -> str:
        """The path or URI of the run, or of this file of it, as messages show it."""
        return str(self.path if file is None else file)

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def events(self) -> Path:
        """What happened, a JSON object a line, appended at once: the truth that the tables and the report are made from."""
        return self.path / "events.jsonl"

    @property
    def trials(self) -> Path:
        return self.path / "trials.csv"

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.csv"

    @property
    def rungs(self) -> Path:
        return self.path / "rungs.csv"

    @property
    def best(self) -> Path:
        return self.path / "best.toml"

    @property
    def weights(self) -> Path:
        return self.path / "DigitRecognitionResNet18.pt"

    @property
    def validation(self) -> Path:
        """The final model's predictions on the validation rows, with their pixels: an Arrow IPC file for the report."""
        return self.path / "validation.arrow"

    @property
    def solution(self) -> Path:
        return self.path / "solution.csv"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    @property
    def report_md(self) -> Path:
        return self.path / "report.md"

    @property
    def study(self) -> Path:
        return self.path / "study.journal"

    @property
    def log(self) -> Path:
        """Ray's and Optuna's own words."""
        return self.path / "search.log"

    @property
    def tune(self) -> Path:
        return self.path / "tune"

    def files(self) -> tuple[Path, ...]:
        """Of the whole run: all that lie in `path` itself."""
        of_run = (self.config, self.environment, self.events, self.study, self.log, self.trials, self.epochs, self.rungs, self.best)
        note = self.weights.with_suffix(".txt")
        return (*of_run, self.weights, note, self.validation, self.solution, self.report_html, self.report_md)

    @property
    def trials_location(self) -> str:
        """Where the workers keep the trials' checkpoints: every node reaches it."""
        return str(self.tune.resolve())

    def trial(self, trial: int) -> Path:
        """Where a trial keeps its checkpoints, its errors and its TensorBoard events."""
        return self.tune / trial_name(trial)

    @property
    def retraining(self) -> Path:
        """Where the retraining keeps its checkpoints while it goes on."""
        return self.path / "retraining"

    def confirming(self, trial: int, seed: int) -> Path:
        """Where a fresh training of one of the best trials keeps its checkpoints while it goes on."""
        return self.retraining / f"{trial_name(trial)}_{seed}"

    def confirmed_weights(self, trial: int, seed: int) -> Path:
        """The weights of such a training, kept until one of them is chosen."""
        return self.retraining / f"{trial_name(trial)}_{seed}.pt"

    def keep_checkpoints(self, trials: Iterable[int], kept: Container[int]) -> None:
        """Of these trials, delete the checkpoints of all but `kept`; 100 MB each."""
        for trial in trials:
            if trial not in kept:
                delete_checkpoints(self.trial(trial))

    def delete_temporary_files(self) -> None:
        """Delete half-written files that killed processes left. Only who holds the lock may do this, and before any worker writes."""
        for folder in (self.path, self.retraining, *self.retraining.glob("*/"), *self.tune.glob("*/")):
            delete_temporary_files(folder)

    def is_incomplete(self) -> bool:
        """Whether a run of this name died before it began: it left no settings, and nothing but what is written before them."""
        if not self.path.is_dir() or self.path.is_symlink():
            return False
        before = {".lock", self.environment.name, self.events.name}
        return all(path.name in before or path.name.endswith(TEMPORARY) for path in self.path.iterdir())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that works on this run. The system drops the lock with the process, however that ends.

        Raises:
            RunFolderError: if another process has it.
        """
        path = self.path / ".lock"
        try:
            file = path.open("a")
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}. Mend its permissions.") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunFolderError(f"{self.path}: another process works on this run; wait for it to end") from error
            yield


def trial_name(trial: int) -> str:
    """What a trial is called in file names and on Ray's dashboard."""
    return f"trial_{trial:04d}"


def checkpoint_files(folder: Path) -> tuple[Path, Path]:
    """The two files that a training writes in turn."""
    return folder / "checkpoint_0.pt", folder / "checkpoint_1.pt"


def delete_checkpoints(folder: Path) -> None:
    """Delete the folder's checkpoints, as far as there are any, and what a killed process left of them."""
    for path in checkpoint_files(folder):
        path.unlink(missing_ok=True)
    delete_temporary_files(folder)


def check_new_run(results: Path, name: str) -> RunFolder:
    """Return the folder that a new run of this name would have; make nothing.

    Raises:
        RunFolderError: if the name is no plain name or is taken, or the results folder is none.
    """
    folder = RunFolder(results / check_run_name(name))
    if results.exists() and not results.is_dir():
        raise RunFolderError(f"--results {results}: expected a folder, found a file")
    if folder.path.exists():
        if not folder.is_incomplete():
            raise RunFolderError(
                f"{folder.path}: there is a run of this name already; choose another --name, or go on with it: resume {name}"
            )
        _check_no_way_out(folder.path)
    return folder


def create_run_folder(results: Path, name: str) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        RunFolderError: as `check_new_run`, or if the folder cannot be made.
    """
    folder = check_new_run(results, name)
    try:
        results.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir(exist_ok=folder.is_incomplete())
    except OSError as error:
        raise RunFolderError(f"{folder.path}: cannot be made: {error.strerror}; choose another --results") from error
    return folder


def _check_no_way_out(folder: Path) -> None:
    """See that a run's folder, which may come from anywhere, holds files and folders alone: a link would lead our writes out of it, and a
    pipe would be waited for.

    Raises:
        RunFolderError: naming what else there is.
    """
    pending = [os.fspath(folder)]
    while pending:
        # A run that goes on meanwhile makes and deletes files.
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name.startswith(_JOURNAL_LOCK):
                    continue
                elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                    found = "a link" if entry.is_symlink() else "a pipe or a device"
                    raise RunFolderError(f"{entry.path}: expected files and folders alone in a run's folder, found {found}; take it away")


def open_run_folder(run: str, results: Path) -> RunFolder:
    """Find a run by its name in the results folder, or by its path.

    Raises:
        RunFolderError: if there is no run, or something in its folder is neither a file nor a folder.
    """
    for path in (results / run, Path(run)):
        folder = RunFolder(path)
        try:
            if run and folder.config.is_file():
                _check_no_way_out(path)
                return folder
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read: {error.strerror}. Mend its permissions.") from error
    raise RunFolderError(
        f"{run or repr(run)}: expected the name of a run in {results}, or a run's folder; there is no {results / run}/config.toml"
    )
