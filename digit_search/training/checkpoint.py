"""Where a training stands, as it is kept: tensors and a checksum, so that one cut short is told from a whole one."""

import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch

from digit_search.errors import DataError
from digit_search.run.checkpoints import Checkpoints
from digit_search.training.tensor_file import MAX_TENSOR_BYTES, load_tensors

logger = logging.getLogger(__name__)

_TRAILER = b"digit_search checkpoint "
_TRAILER_BYTES = len(_TRAILER) + 4


class _ChecksumWriter:
    """Passes on what is written and keeps its CRC-32, so that a checkpoint of 100 MB is never held in memory as a whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = 0

    def write(self, data: bytes) -> int:
        self._checksum = zlib.crc32(data, self._checksum)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def trailer(self) -> bytes:
        """What follows the content on the disk."""
        return _TRAILER + self._checksum.to_bytes(4, "big")


def save_checkpoint(checkpoints: Checkpoints, step: int, state: Mapping[str, Any]) -> None:
    """Write the state after `step` reports in the place of an older one.

    Args:
        checkpoints: of the training.
        step: reports so far.
        state: tensors and plain values only, so that nothing but them is ever unpickled.

    Raises:
        StorageError: if the disk does not take it; the checkpoints before are untouched then.
    """
    with checkpoints.opened(step) as file:
        writer = _ChecksumWriter(file)
        with _without_torchs_checksums():
            save_tensors(state, writer)
        file.write(writer.trailer())


@contextmanager
def _without_torchs_checksums() -> Iterator[None]:
    """Ours covers all of a checkpoint; torch's own, a tensor at a time, are never looked at and took a third of the time."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def save_tensors(state: Mapping[str, Any], file: BinaryIO | _ChecksumWriter) -> None:
    """torch.save, whose errors are those of the file: torch (2.14) hides a full disk, or a Ctrl-C, behind a RuntimeError of its own."""
    try:
        torch.save(dict(state), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError | KeyboardInterrupt):
            raise error.__context__ from error
        raise


def load_checkpoint(checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The newest whole state by its `reports`, or None. One that was cut short or changed is passed over, and said so.

    Raises:
        StorageError: if one cannot be read.
    """
    found: list[dict[str, Any]] = []
    for path, content in checkpoints.contents(MAX_TENSOR_BYTES):
        state = _state_of(path, content)
        found += [state] if state is not None else []
        if found and checkpoints.newest_first:
            break
    return max(found, key=lambda state: state["reports"], default=None)


def _state_of(path: str, content: bytes) -> dict[str, Any] | None:
    state, trailer = memoryview(content)[:-_TRAILER_BYTES], content[-_TRAILER_BYTES:]
    if trailer != _TRAILER + zlib.crc32(state).to_bytes(4, "big"):
        logger.warning("%s: its checksum does not fit; the checkpoint before it is used", path)
        return None
    try:
        loaded = load_tensors(state)
    except DataError as error:
        logger.warning("%s: expected a checkpoint; %s; the checkpoint before it is used", path, error)
        return None
    if not isinstance(loaded, dict) or type(loaded.get("reports")) is not int:
        logger.warning("%s: it says not how many reports it stands for; the checkpoint before it is used", path)
        return None
    return loaded
