"""Where a training's checkpoints lie, as bytes: what is in them is `training/checkpoint.py`'s business."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from digit_search.errors import StorageError
from digit_search.run_folder import checkpoint_files, delete_temporaries, trial_name, whole_file
from digit_search.untrusted import read_bounded


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
            delete_temporaries(self.folder)
        except OSError as error:
            raise StorageError.of(self.folder, error) from error
        return whole_file(checkpoint_files(self.folder)[step % 2])

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


def trial_checkpoints(trials: str, trial: int) -> Checkpoints:
    """The checkpoints of a trial, wherever this process runs; `trials` is `RunFolder.trials_at`."""
    return LocalCheckpoints(Path(trials) / trial_name(trial))
