"""A run that is kept in an object store: it is worked on in a copy on this machine's disk, and the store is kept like that."""

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
from digit_search.run.layout import RunFolder, check_run_name, trial_name
from digit_search.run.state import load_state
from digit_search.storage.remote_lock import CLAIMS, LOCK, STALE_SECONDS, RemoteLock
from digit_search.storage.sync import Mirror

OF_WORKING_COPY = (".lock", ".owner")

CHECKPOINT_OR_TEMPORARY = re.compile(REMOTE_CHECKPOINT.pattern + r"(\.\d+\.tmp)?")
"""A worker that is killed as it writes leaves 100 MB in a mounted store."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteRunFolder(RunFolder):
    """The working copy of a run, in `path`. Trials keep their checkpoints in the store, where every node reaches them."""

    remote: Remote
    is_new: bool = False

    @property
    def is_here(self) -> bool:
        return False

    @property
    def address(self) -> str:
        return self.remote.uri

    def shown(self, file: Path | None = None) -> str:
        return self.remote.uri if file is None else self.remote.shown(file.relative_to(self.path).as_posix())

    @property
    def trials_location(self) -> str:
        return self.remote.child(self.tune.name).uri

    def keep_checkpoints(self, trials: Iterable[int], kept: Container[int]) -> None:
        folders = {trial_name(trial) for trial in trials if trial not in kept}
        try:
            self._delete_checkpoints(lambda folder, step: folder in folders)
        except StorageError as error:
            # Done again when the next trial ends: a loser's checkpoint is not worth a search.
            logger.warning("%s", error)

    def _delete_checkpoints(self, is_doomed: Callable[[str, int], bool]) -> None:
        trials = self.remote.child(self.tune.name)
        for name in trials.files():
            folder, _, file = name.partition("/")
            if (match := CHECKPOINT_OR_TEMPORARY.fullmatch(file)) and is_doomed(folder, int(match[1])):
                trials.delete(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that works on this run, here and in the store, which has all of it in the end; the working copy then goes.

        Raises:
            RunFolderError: if another process works on it, there is no such run, or a new one's name is taken.
            StorageError: if the store cannot be reached.
            SearchError: if the store does not have all of it in the end, or another process took the run over.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be made: {error.strerror}; XDG_CACHE_HOME names another place") from error
        with RunFolder.locked(self):
            lock, mirror = RemoteLock(self.remote, self._token()), Mirror(self, self.remote)
            is_newest = lock.take() or (not lock.knows_newest and self._has_more_events())
            try:
                with lock.kept():
                    self._make_current(mirror, is_newest=is_newest)
                    lock.call_ours_newest()
                    with self._brought_to_store(mirror, lock):
                        yield
            finally:
                if not lock.taken_by:
                    with suppress(StorageError):
                        lock.release()
                self._leave()

    def _token(self) -> str:
        """What tells this working copy from all others."""
        file = self.path / OF_WORKING_COPY[1]
        if not file.exists():
            write_atomically(file, uuid.uuid4().hex)
        return file.read_text()

    def _has_more_events(self) -> bool:
        """Whether the working copy is ahead of the store, where somebody deleted the lock, or the store's whole content."""
        there = self.remote.files().get(self.events.name)
        return self.events.is_file() and (there is None or there.size <= self.events.stat().st_size)

    def _make_current(self, mirror: Mirror, *, is_newest: bool) -> None:
        """See that the working copy is at least as new as the store's."""
        if self.is_new:
            check_new_remote_run(self.remote)
            self._empty()
            return
        if not is_newest or not self.config.is_file():
            self._empty()
            mirror.pull(with_trainings=True)
        _check_is_run(self)
        self._drop_checkpoints_ahead()

    def _empty(self) -> None:
        # First: from here on it is no run.
        self.config.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in OF_WORKING_COPY:
                path.unlink()

    def _leave(self) -> None:
        """Delete the working copy if it is empty."""
        with suppress(OSError):
            if all(path.name in OF_WORKING_COPY for path in self.path.iterdir()):
                shutil.rmtree(self.path)
                self.path.parent.rmdir()

    def _drop_checkpoints_ahead(self) -> None:
        """Delete the checkpoints that the events know nothing of: the store's may lack the last seconds of a driver that was lost.

        One report ahead is as it should be, since a checkpoint is written before its report.
        """
        per_epoch = load_settings(self.config).search.reports_per_epoch
        trials = load_state(self.events).trials
        known = {trial_name(record.trial): round(record.epochs[-1].epoch * per_epoch) if record.epochs else 0 for record in trials}
        self._delete_checkpoints(lambda folder, step: step > known.get(folder, -1) + 1)

    @contextmanager
    def _brought_to_store(self, mirror: Mirror, lock: RemoteLock) -> Iterator[None]:
        """Bring what is done in here to the store, all of it in the end, however it ends."""
        try:
            with mirror.running():
                yield
        finally:
            if lock.taken_by:
                raise SearchError(
                    f"{self.remote.uri}: another process works on this run by now, on {lock.taken_by}: the store had not heard of this "
                    f"one for {STALE_SECONDS / 60:.0f} minutes. What this one did since then is in {self.path} alone"
                )
            try:
                mirror.push()
                self._empty()
            except StorageError as error:
                raise SearchError(
                    f"{error}\n{self.remote.uri} lacks the newest of this run; all of it is in {self.path} on this machine.\n"
                    f"Go on with: python tune_main.py resume {shlex.quote(self.remote.uri)}"
                ) from error


def working_copy(remote: Remote) -> Path:
    """Where a run of the store is worked on here: in the user's cache folder."""
    folder = hashlib.sha256(remote.uri.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("digit_search") / "runs" / folder / check_run_name(remote.name)


def remote_run(remote: Remote, *, is_new: bool = False) -> RemoteRunFolder:
    """A run in the store. Nothing is asked there yet."""
    return RemoteRunFolder(working_copy(remote), remote, is_new)


def check_new_remote_run(remote: Remote) -> None:
    """See that a new run can have this place.

    Raises:
        RunFolderError: if it is taken.
        StorageError: if the store cannot be reached.
    """
    folder = RunFolder(Path())
    before = {LOCK, folder.environment.name, folder.events.name}
    if any(name not in before and not name.startswith(CLAIMS) for name in remote.files()):
        raise RunFolderError(f"{remote.uri}: there is a run of this name already; choose another --name, or go on with it: resume")


def _check_is_run(folder: RemoteRunFolder) -> None:
    if not folder.config.is_file():
        raise RunFolderError(f"{folder.remote.uri}: expected a run, found none; there is no {folder.shown(folder.config)}")


@contextmanager
def snapshot(remote: Remote) -> Iterator[RunFolder]:
    """The run's files as they are now, in a folder for the moment; what is changed there, as its report, is brought to the store.

    Raises:
        RunFolderError: if there is no run.
        StorageError: if the store cannot be read, or does not take what was changed.
    """
    with TemporaryDirectory() as temporary:
        folder = RemoteRunFolder(Path(temporary) / check_run_name(remote.name), remote)
        folder.path.mkdir()
        mirror = Mirror(folder, remote)
        mirror.pull(with_trainings=False)
        _check_is_run(folder)
        yield folder
        mirror.push()
