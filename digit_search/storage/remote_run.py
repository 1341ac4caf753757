"""A run in an object store: the driver works on a local copy and syncs it to the store."""

import hashlib
import logging
import re
import shlex
import shutil
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from digit_search.config.loading import load_settings
from digit_search.errors import RunFolderError, SearchError, StorageError
from digit_search.files.atomic_io import write_atomically
from digit_search.files.object_store import Remote
from digit_search.run.checkpoints import REMOTE_CHECKPOINT
from digit_search.run.layout import FILES_BEFORE_CONFIG, RunFolder, check_run_name, trial_name
from digit_search.run.lock import LOCK
from digit_search.run.state import load_state
from digit_search.storage.remote_lock import CLAIMS, STALE_SECONDS, RemoteLock
from digit_search.storage.sync import RunSync

OWNER = ".owner"
WORKING_COPY_FILES = (LOCK, OWNER)
"""The files of the working copy itself, which are not files of the run."""
CHECKPOINT_OR_TEMPORARY = re.compile(REMOTE_CHECKPOINT.pattern + r"(\.\d+\.tmp)?")
"""On a mounted disk, a worker that is killed while it writes leaves a temporary file of 100 MB."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteRunFolder(RunFolder):
    """The working copy of a run is in `path`. The trials' checkpoints are only in the store, where every node reaches them."""

    remote: Remote
    is_new: bool = False
    is_local = False

    @property
    def location(self) -> str:
        return self.remote.uri

    def display_path(self, file: Path | None = None) -> str:
        return self.remote.uri if file is None else self.remote.display_uri(file.relative_to(self.path).as_posix())

    @property
    def trials_location(self) -> str:
        return self.remote.child(self.tune.name).uri

    def keep_checkpoints(self, trials: Iterable[int], kept: Container[int]) -> None:
        folders = {trial_name(trial) for trial in trials if trial not in kept}
        try:
            self._delete_checkpoints(lambda folder, step: folder in folders)
        except StorageError as error:
            # This must not end the search; the next trial that ends tries again.
            logger.warning("%s", error)

    def _delete_checkpoints(self, is_unwanted: Callable[[str, int], bool]) -> None:
        """Delete the trials' checkpoints for which `is_unwanted(folder, step)` is true."""
        trials = self.remote.child(self.tune.name)
        for name in trials.files():
            folder, _, file = name.partition("/")
            if (match := CHECKPOINT_OR_TEMPORARY.fullmatch(file)) and is_unwanted(folder, int(match[1])):
                trials.delete(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that works on this run, here and in the store. At the end the working copy is uploaded and deleted.

        Raises:
            RunFolderError: if another process works on it, it does not exist, or the name of a new one is taken.
            StorageError: if the store cannot be reached.
            SearchError: if the upload fails at the end, or another process has taken over the run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be created: {error.strerror}; choose another folder with XDG_CACHE_HOME") from error
        # super() without arguments does not work in a dataclass with slots (Python 3.11).
        with RunFolder.locked(self):
            token = self._token()
            lock, sync = RemoteLock(self.remote, token), RunSync(self, self.remote)
            newest = lock.acquire()
            try:
                with lock.renewed():
                    self._update(sync, is_newest=newest == token or (not newest and self._has_more_events()))
                    lock.mark_as_newest()
                    with self._synced(sync, lock):
                        yield
            finally:
                if not lock.taken_over_by:
                    with suppress(StorageError):
                        lock.release()
                self._delete_if_empty()

    def _token(self) -> str:
        """The random name of this working copy."""
        file = self.path / OWNER
        if not file.exists():
            write_atomically(file, uuid.uuid4().hex)
        return file.read_text(encoding="utf-8")

    def _has_more_events(self) -> bool:
        """Whether the working copy is ahead of the store, in which a user deleted the lock or all files."""
        stored = self.remote.files().get(self.events.name)
        return self.events.is_file() and (stored is None or stored.size <= self.events.stat().st_size)

    def _update(self, sync: RunSync, *, is_newest: bool) -> None:
        """Make the working copy at least as new as the store."""
        if self.is_new:
            check_new_remote_run(self.remote)
            self._delete_run_files()
            return
        if not is_newest or not self.config.is_file():
            self._delete_run_files()
            self.pull(sync, with_trainings=True)
        self._delete_unknown_checkpoints()

    def pull(self, sync: RunSync, *, with_trainings: bool) -> None:
        """Download the run. Raises RunFolderError if there is none."""
        sync.pull(with_trainings=with_trainings)
        if not self.config.is_file():
            raise RunFolderError(f"{self.remote.uri}: expected a run, found none; there is no {self.display_path(self.config)}")

    def _delete_run_files(self) -> None:
        # config.toml first: without it, what a crash leaves does not count as a run.
        self.config.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in WORKING_COPY_FILES:
                path.unlink()

    def _delete_if_empty(self) -> None:
        """Delete the working copy if it has no files of the run."""
        with suppress(OSError):
            if all(path.name in WORKING_COPY_FILES for path in self.path.iterdir()):
                shutil.rmtree(self.path)
                self.path.parent.rmdir()

    def _delete_unknown_checkpoints(self) -> None:
        """Delete the checkpoints of reports that are not in the events. The last seconds are missing there if the driver's machine died.

        A checkpoint may be one report ahead, since it is written before its report.
        """
        per_epoch = load_settings(self.config).search.reports_per_epoch
        trials = load_state(self.events).trials
        reports = {trial_name(record.trial): round(record.epochs[-1].epoch * per_epoch) if record.epochs else 0 for record in trials}
        self._delete_checkpoints(lambda folder, step: step > reports.get(folder, -1) + 1)

    @contextmanager
    def _synced(self, sync: RunSync, lock: RemoteLock) -> Iterator[None]:
        """Sync the working copy to the store in the background, and once more on exit, however the run ends."""
        try:
            with sync.in_background():
                yield
        finally:
            if lock.taken_over_by:
                raise SearchError(
                    f"{self.remote.uri}: another process took over this run, on {lock.taken_over_by}, because this one had not renewed its "
                    f"lock for {STALE_SECONDS / 60:.0f} minutes. What this one did since then is only in {self.path}"
                )
            try:
                sync.push()
                self._delete_run_files()
            except StorageError as error:
                raise SearchError(
                    f"{error}\n{self.remote.uri} lacks the newest files of this run; all of them are in {self.path} on this machine.\n"
                    f"Continue with: python tune_main.py resume {shlex.quote(self.remote.uri)}"
                ) from error


def remote_run(remote: Remote, *, is_new: bool = False) -> RemoteRunFolder:
    """A run in the store, whose working copy is in the user's cache folder. This sends no request; `locked` does."""
    folder = hashlib.sha256(remote.uri.encode()).hexdigest()[:16]
    path = platformdirs.user_cache_path("digit_search") / "runs" / folder / check_run_name(remote.name)
    return RemoteRunFolder(path, remote, is_new)


def check_new_remote_run(remote: Remote) -> None:
    """Raise RunFolderError if there is a run already, StorageError if the store cannot be reached."""
    if any(name not in FILES_BEFORE_CONFIG and not name.startswith(CLAIMS) for name in remote.files()):
        raise RunFolderError(
            f"{remote.uri}: there is a run of this name already; choose another --name, or continue that run with: "
            f"python tune_main.py resume {shlex.quote(remote.uri)}"
        )


@contextmanager
def snapshot(remote: Remote) -> Iterator[RunFolder]:
    """The run's files as they are now, in a temporary folder. What is changed there, such as the report, is uploaded at the end.

    Raises RunFolderError if there is no run, StorageError if the store cannot be read or written.
    """
    with TemporaryDirectory() as temporary:
        folder = RemoteRunFolder(Path(temporary) / check_run_name(remote.name), remote)
        folder.path.mkdir()
        sync = RunSync(folder, remote)
        folder.pull(sync, with_trainings=False)
        yield folder
        sync.push()
