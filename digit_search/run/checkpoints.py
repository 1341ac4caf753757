"""Where a training's checkpoints lie, as bytes: what is in them is `training/checkpoint.py`'s business."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from digit_search.errors import StorageError
from digit_search.files.atomic_io import atomic_file, delete_temporary_files
from digit_search.files.bounded_io import read_bounded
from digit_search.files.object_store import Remote, is_uri
from digit_search.run.layout import checkpoint_files, trial_name


class Checkpoints(Protocol):
    """The checkpoints of one training: at least the newest two, so that one cut short never costs more than one report."""

    newest_first: bool
    """Whether `contents` tells which one is the newest, so that the others need not be read."""

    def opened(self, step: int) -> AbstractContextManager[BinaryIO]:
        """A file to write that counts as the checkpoint after `step` reports when all of it is there.

        Raises:
            StorageError: if it cannot be kept; the checkpoints before are untouched then.
        """

    def contents(self, max_bytes: int) -> Iterator[tuple[str, bytes]]:
        """Where each lies, and what is there.

        Raises:
            StorageError: if one cannot be read, or is larger than `max_bytes`.
        """

    def write_error(self, text: str) -> None:
        """Keep the traceback of a trial that failed beside them."""


@dataclass(frozen=True, slots=True)
class LocalCheckpoints:
    """Two files in turn, in a folder that is made when it is needed."""

    folder: Path
    newest_first = False

    def opened(self, step: int) -> AbstractContextManager[BinaryIO]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A worker that was killed as it wrote one left 100 MB.
            delete_temporary_files(self.folder)
        except OSError as error:
            raise StorageError.of(self.folder, error) from error
        return atomic_file(checkpoint_files(self.folder)[step % 2])

    def contents(self, max_bytes: int) -> Iterator[tuple[str, bytes]]:
        for path in checkpoint_files(self.folder):
            try:
                yield str(path), read_bounded(path, max_bytes)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"{path}: cannot be read: {error.strerror}. Mend the disk or its permissions.") from error

    def write_error(self, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "error.log").write_text(text)


REMOTE_CHECKPOINT = re.compile(r"checkpoint_(\d{1,9})\.pt")


@dataclass(frozen=True, slots=True)
class RemoteCheckpoints:
    """Objects named by their step, so that a listing tells the newest. An object appears whole; a lost worker leaves the ones before."""

    remote: Remote
    newest_first = True

    @contextmanager
    def opened(self, step: int) -> Iterator[BinaryIO]:
        # In memory, because a write that is broken off half-way would still become an object, and so that it can be tried again.
        content = io.BytesIO()
        yield content
        self.remote.write(f"checkpoint_{step}.pt", content)
        steps = self._steps()
        earlier = max((other for other in steps if other < step), default=None)
        for other, name in steps.items():
            # One of a later step could not be read, or this training would have gone on from it.
            if other not in (step, earlier):
                self.remote.delete(name)

    def contents(self, max_bytes: int) -> Iterator[tuple[str, bytes]]:
        for _, name in sorted(self._steps().items(), reverse=True):
            if (content := self.remote.get(name, max_bytes)) is not None:
                yield self.remote.display_uri(name), content

    def write_error(self, text: str) -> None:
        self.remote.put("error.log", text.encode())

    def _steps(self) -> Mapping[int, str]:
        return {int(match[1]): name for name in self.remote.files() if (match := REMOTE_CHECKPOINT.fullmatch(name))}


def trial_checkpoints(trials_location: str, trial: int) -> Checkpoints:
    """The checkpoints of a trial, wherever this process runs; `trials_location` is `RunFolder.trials_location`."""
    if is_uri(trials_location):
        return RemoteCheckpoints(Remote(trials_location).child(trial_name(trial)))
    return LocalCheckpoints(Path(trials_location) / trial_name(trial))
