"""Synchronizes a run's files between its working copy on this machine and an object store."""

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from digit_search.errors import StorageError
from digit_search.files.bounded_io import max_file_bytes
from digit_search.files.object_store import Remote
from digit_search.run.layout import RunFolder

PAUSE_SECONDS = 3.0
PAUSE_PER_PUSH = 4.0
"""The pause is at least this many times as long as the push before it: events.jsonl grows, and is uploaded as a whole each time."""
TUNE_FILE = re.compile(r"tune/trial_\d{4,9}/(events\.out\.tfevents\.[\w.-]{1,200}|error\.log|error\.txt)")
"""The files of Ray Tune that people and TensorBoard read. The workers write their checkpoints to the store themselves."""
TRAINING_FILE = re.compile(r"retraining/(trial_\d{4,9}_\d{1,10}(\.pt|\.txt|/checkpoint_[01]\.pt)|checkpoint_[01]\.pt)")

logger = logging.getLogger(__name__)


class Stamp(NamedTuple):
    """Differs between two versions of a file."""

    num_bytes: int
    modified_at_ns: int
    inode: int


class RunSync:
    """Knows which version of each file the store has, and uploads newer ones.

    The order of the uploads makes the store's copy resumable at any time: the files that events.jsonl mentions are uploaded before it,
    files that are no longer needed are deleted after it, and config.toml, which makes a folder a run, is uploaded last.
    """

    def __init__(self, folder: RunFolder, remote: Remote) -> None:
        self._folder = folder
        self._remote = remote
        self._synced: dict[str, Stamp] = {}
        """By name, the version of each file that is the same on both sides."""

    def pull(self, *, with_trainings: bool) -> None:
        """Download the run's files into a folder that has none of them. Raises StorageError.

        The events come first, so that no file is older than they are; config.toml comes last here too.
        """
        config, events = self._folder.config.name, self._folder.events.name
        stored = self._remote.files()
        names = [path.name for path in self._folder.files() if path.name in stored]
        names += [name for name in stored if with_trainings and TRAINING_FILE.fullmatch(name)]
        try:
            for name in sorted(names, key=lambda name: (name == config, name != events)):
                path = self._folder.path / name
                if self._remote.download(name, path, max_file_bytes()) and (stamp := _stamp(path)):
                    self._synced[name] = stamp
        except OSError as error:
            raise StorageError.of(self._folder.path, error) from error

    def push(self) -> None:
        """Upload what was changed here, and delete in the store what was deleted here. Raises StorageError."""
        config, events = self._folder.config.name, self._folder.events.name
        # Read before the other stamps, so that each file is uploaded in a version that is at least as new as the events.
        events_stamp = _stamp(self._folder.events)
        stamps = self._stamps() | ({events: events_stamp} if events_stamp else {})
        for name in sorted(stamps, key=lambda name: (name == config, name == events)):
            if self._synced.get(name) != stamps[name]:
                # The next push uploads what was appended to the events meanwhile.
                max_bytes = stamps[name].num_bytes if name == events else None
                with suppress(FileNotFoundError):
                    self._remote.upload(self._folder.path / name, name, max_bytes)
                    self._synced[name] = stamps[name]
        for name in [name for name in self._synced if name not in stamps]:
            self._remote.delete(name)
            del self._synced[name]

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Push every few seconds in a thread. Errors are logged, and the next push tries again, so call `push` once more at the end."""
        ended = threading.Event()
        thread = threading.Thread(target=self._push_until, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _push_until(self, ended: threading.Event) -> None:
        pause = PAUSE_SECONDS
        while not ended.wait(pause):
            started_at = time.monotonic()
            try:
                self.push()
            except StorageError as error:
                logger.warning("the store does not have the newest files: %s", error)
            pause = max(PAUSE_SECONDS, PAUSE_PER_PUSH * (time.monotonic() - started_at))

    def _stamps(self) -> dict[str, Stamp]:
        """The stamps of all files that belong in the store, by name."""
        root = self._folder.path
        # os.walk ignores a folder that is deleted meanwhile; pathlib's glob raises an error (Python 3.11).
        paths = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
        names = [name for path in paths if _is_run_file(name := path.relative_to(root).as_posix())]
        return {name: stamp for name in names if (stamp := _stamp(root / name))}


def _is_run_file(name: str) -> bool:
    if "/" not in name:
        return not name.startswith(".")
    return bool(TUNE_FILE.fullmatch(name) or TRAINING_FILE.fullmatch(name))


def _stamp(path: Path) -> Stamp | None:
    """The stamp of a regular file; None if it is something else, or was deleted."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)
    return None
