"""A run's files in an object store, kept like those of its working copy."""

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from digit_search.errors import StorageError
from digit_search.files.bounded_io import max_file_bytes
from digit_search.files.object_store import Remote
from digit_search.run.layout import RunFolder

PAUSE_SECONDS = 3.0
PAUSE_SHARE = 4.0
"""The pause is at least so many times as long as what it follows: events.jsonl cannot be appended to there and grows."""
FROM_TUNE = re.compile(r"tune/trial_\d{4,9}/(events\.out\.tfevents\.[\w.-]{1,200}|error\.log|error\.txt)")
"""What others read of Ray Tune's own files. The workers write their checkpoints to the store themselves."""
OF_TRAININGS = re.compile(r"retraining/(trial_\d{4,9}_\d{1,10}(\.pt|\.txt|/checkpoint_[01]\.pt)|checkpoint_[01]\.pt)")

Stamp = tuple[int, int, int]
logger = logging.getLogger(__name__)


class Mirror:
    """Knows which files the store has, and brings the others there.

    The order makes the store's copy one that a run can go on from at any time: what events.jsonl tells of comes before it, what it tells to
    be needed no more goes after it, and config.toml, which makes a folder a run, comes last.
    """

    def __init__(self, folder: RunFolder, remote: Remote) -> None:
        self._folder = folder
        self._remote = remote
        self._known: dict[str, Stamp] = {}
        """By name, the version of each file that both sides have."""

    def pull(self, *, with_trainings: bool) -> None:
        """Bring the run's own files here, into a folder that has none of them; config.toml, which makes it a run, comes last.

        Raises:
            StorageError: if the store cannot be read, or the disk does not take them.
        """
        seen = self._remote.files()
        names = [path.name for path in self._folder.files() if path.name in seen]
        names += [name for name in seen if with_trainings and OF_TRAININGS.fullmatch(name)]
        try:
            for name in sorted(names, key=lambda name: (name == self._folder.config.name, name != self._folder.events.name)):
                path = self._folder.path / name
                if self._remote.download(name, path, max_file_bytes()):
                    self._known[name] = _stamp(path)
        except OSError as error:
            raise StorageError.of(self._folder.path, error) from error

    def push(self) -> None:
        """Bring what was changed to the store, and delete there what was deleted here.

        Raises:
            StorageError: if the store does not take it.
        """
        # Looked at first: whatever it tells of is at least as new in what is found after.
        events = {name: stamp for name in (self._folder.events.name,) for stamp in _stamps(self._folder.path / name)}
        found = self._files() | events
        last = (*events, self._folder.config.name)
        for name in sorted(found, key=lambda name: last.index(name) if name in last else -1):
            if self._known.get(name) != found[name]:
                with suppress(FileNotFoundError):
                    self._remote.upload(self._folder.path / name, name, found[name][0] if name in events else None)
                    self._known[name] = found[name]
        for name in [name for name in self._known if name not in found]:
            self._remote.delete(name)
            del self._known[name]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Push in the background every few seconds. What fails is tried again; how the store stands at the end, a last `push` tells."""
        ended = threading.Event()
        pushing = threading.Thread(target=self._push_until, args=(ended,), daemon=True)
        pushing.start()
        try:
            yield
        finally:
            ended.set()
            pushing.join()

    def _push_until(self, ended: threading.Event) -> None:
        pause = PAUSE_SECONDS
        while not ended.wait(pause):
            begun_at = time.monotonic()
            try:
                self.push()
            except StorageError as error:
                logger.warning("the copy in the store is behind: %s", error)
            except FileNotFoundError:  # Python 3.11's glob raises it where a folder goes while it looks.
                continue
            pause = max(PAUSE_SECONDS, PAUSE_SHARE * (time.monotonic() - begun_at))

    def _files(self) -> Mapping[str, Stamp]:
        """All that belongs into the store."""
        root = self._folder.path
        paths = [*root.glob("*"), *root.glob("retraining/**/*"), *root.glob("tune/trial_*/*")]
        names = [path.relative_to(root).as_posix() for path in paths if not path.name.startswith(".")]
        kept = [name for name in names if "/" not in name or FROM_TUNE.fullmatch(name) or OF_TRAININGS.fullmatch(name)]
        return {name: stamp for name in kept for stamp in _stamps(root / name)}


def _stamps(path: Path) -> list[Stamp]:
    """The stamp of a file; nothing for what is none, or is gone."""
    with suppress(FileNotFoundError):
        return [_stamp(path)] if path.is_file() and not path.is_symlink() else []
    return []


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
