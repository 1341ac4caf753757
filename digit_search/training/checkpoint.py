"""Checkpoints of a training: its state, written with a checksum, and restored only if the checksum fits."""

import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO

import torch

from digit_search.errors import DataError, TrialError
from digit_search.records import EpochMetrics
from digit_search.run.checkpoints import Checkpoints
from digit_search.training.device import is_out_of_gpu_memory
from digit_search.training.loop import BestEpoch
from digit_search.training.tensor_file import MAX_TENSOR_BYTES, load_tensors, save_tensors
from digit_search.training.trainer import Trainer

logger = logging.getLogger(__name__)

_TRAILER = b"digit_search checkpoint "
_TRAILER_BYTES = len(_TRAILER) + 4


def checkpoint_state(trainer: Trainer, metrics: EpochMetrics, best: BestEpoch) -> dict[str, Any]:
    """The trainer's state, its last report and its best epoch. The best weights are left out if they are the present ones."""
    state = trainer.state_dict()
    is_present = best.metrics.epoch == metrics.epoch
    best_state = {"metrics": asdict(best.metrics), "weights": None if is_present else best.weights}
    return {"reports": state["reports"], "trainer": state, "metrics": asdict(metrics), "best": best_state}


def restore(trainer: Trainer, state: Mapping[str, Any]) -> tuple[EpochMetrics, BestEpoch]:
    """Load the state of a checkpoint into a new trainer; return its last report and its best epoch.

    Raises:
        TrialError: if the state is incomplete or belongs to another training.
    """
    try:
        trainer.load_state_dict(state["trainer"])
        weights = state["best"]["weights"]
        best = BestEpoch(EpochMetrics(**state["best"]["metrics"]), trainer.final_weights() if weights is None else weights)
        return EpochMetrics(**state["metrics"]), best
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if is_out_of_gpu_memory(error):
            raise
        raise TrialError(f"the checkpoint does not belong to this training ({type(error).__name__}: {str(error)[:200]})") from error


class _ChecksumWriter:
    """Writes to a file and computes the CRC-32 of the content, so that 100 MB need not be held in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = 0

    def write(self, data: bytes) -> int:
        self._checksum = zlib.crc32(data, self._checksum)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def trailer(self) -> bytes:
        """The bytes to write after the content."""
        return _TRAILER + self._checksum.to_bytes(4, "big")


def save_checkpoint(checkpoints: Checkpoints, step: int, state: Mapping[str, Any]) -> None:
    """Write the state after `step` reports in place of the oldest checkpoint.

    Args:
        checkpoints: of the training.
        step: reports so far.
        state: tensors and plain values only; `load_checkpoint` refuses anything else.

    Raises:
        StorageError: if it cannot be written; the earlier checkpoints are unchanged then.
    """
    with checkpoints.opened(step) as file:
        writer = _ChecksumWriter(file)
        with _without_torchs_checksums():
            save_tensors(state, writer)
        file.write(writer.trailer())


@contextmanager
def _without_torchs_checksums() -> Iterator[None]:
    """Turn off torch's checksums of single tensors: ours covers the whole file, and torch's took a third of the time to save."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def load_checkpoint(checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The state with the most `reports`, or None. A damaged checkpoint is ignored with a warning.

    Raises:
        StorageError: if a checkpoint cannot be read.
    """
    states: list[dict[str, Any]] = []
    for path, content in checkpoints.contents(MAX_TENSOR_BYTES):
        if (state := _state_of(path, content)) is not None:
            states.append(state)
        if states and checkpoints.newest_first:
            break
    return max(states, key=lambda state: state["reports"], default=None)


def _state_of(path: str, content: bytes) -> dict[str, Any] | None:
    state, trailer = memoryview(content)[:-_TRAILER_BYTES], content[-_TRAILER_BYTES:]
    if trailer != _TRAILER + zlib.crc32(state).to_bytes(4, "big"):
        logger.warning("%s: the checksum does not fit; using the checkpoint before it", path)
        return None
    try:
        loaded = load_tensors(state)
    except DataError as error:
        logger.warning("%s: expected a checkpoint; %s; using the checkpoint before it", path, error)
        return None
    if not isinstance(loaded, dict) or type(loaded.get("reports")) is not int:
        logger.warning("%s: expected a checkpoint, found no number of reports in it; using the checkpoint before it", path)
        return None
    return loaded
