"""Reads and writes a training's checkpoints as bytes, on the disk or in a store. Their content is defined in `training/checkpoint.py`.

At least the newest two are kept, so that a damaged one costs no more than one report.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from digit_search.errors import StorageError
from digit_search.files.atomic_io import atomic_file, delete_temporary_files
from digit_search.files.bounded_io import read_bounded
from digit_search.files.object_store import Remote, is_uri
from digit_search.run.layout import checkpoint_files, trial_name


@dataclass(frozen=True, slots=True)
class LocalCheckpoints:
    """Two files that are written alternately, in a folder that is created with the first of them."""

    folder: Path
    newest_first = False
    """Whether `contents` begins with the newest one, so that the others need not be read."""

    def opened(self, step: int) -> AbstractContextManager[BinaryIO]:
        """Open a file to write, which becomes the checkpoint after `step` reports once it is complete.

        Raises StorageError if it cannot be written; the earlier checkpoints are kept.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A worker that was killed while it wrote one left 100 MB.
            delete_temporary_files(self.folder)
        except OSError as error:
            raise StorageError.of(self.folder, error) from error
        return atomic_file(checkpoint_files(self.folder)[step % 2])

    def contents(self, max_bytes: int) -> Iterator[tuple[str, bytes]]:
        """The path of each checkpoint, and its bytes. Raises StorageError if it cannot be read or is larger than `max_bytes`."""
        for path in checkpoint_files(self.folder):
            try:
                yield str(path), read_bounded(path, max_bytes)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"{path}: cannot be read: {error.strerror}. Fix the disk or the permissions.") from error

    def write_error(self, text: str) -> None:
        """Write the traceback of a failed trial into error.log, next to the checkpoints."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "error.log").write_text(text, encoding="utf-8")


REMOTE_CHECKPOINT = re.compile(r"checkpoint_(\d{1,9})\.pt")


@dataclass(frozen=True, slots=True)
class RemoteCheckpoints:
    """As `LocalCheckpoints`, but objects that are named by their step, so that a listing shows which is the newest."""

    remote: Remote
    newest_first = True

    @contextmanager
    def opened(self, step: int) -> Iterator[BinaryIO]:
        # In memory, because a write that fails halfway would still become an object, and because it may have to be tried again.
        content = io.BytesIO()
        yield content
        self.remote.write(f"checkpoint_{step}.pt", content)
        steps = self._steps()
        earlier = max((other for other in steps if other < step), default=None)
        for other, name in steps.items():
            # A later checkpoint is damaged, otherwise this training would have resumed from it.
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


Checkpoints = LocalCheckpoints | RemoteCheckpoints


def trial_checkpoints(trials_location: str, trial: int) -> Checkpoints:
    """The checkpoints of a trial. `trials_location` is `RunFolder.trials_location`, which every node reaches."""
    if is_uri(trials_location):
        return RemoteCheckpoints(Remote(trials_location).child(trial_name(trial)))
    return LocalCheckpoints(Path(trials_location) / trial_name(trial))
