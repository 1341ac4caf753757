"""Where a training stands, on disk: two files in turn, each with a checksum, so that one cut short never costs more than one report."""

import io
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from digit_search.errors import RunFolderError
from digit_search.run_folder import checkpoint_files, write_whole

logger = logging.getLogger(__name__)

_MAGIC = b"digit_search checkpoint 1\n"
_CHECKSUM_BYTES = 4


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write the state after `step` reports over the older of the folder's two checkpoints.

    Args:
        folder: of the trial; made if needed.
        step: reports so far.
        state: tensors and plain values only, so that nothing but them is ever unpickled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    checksum = zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big")
    write_whole(checkpoint_files(folder)[step % 2], b"".join((_MAGIC, checksum, content)))


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest whole state of the folder by its `reports`, or None. A file that was cut short or changed is passed over, and said so."""
    found = [state for path in checkpoint_files(folder) if (state := _read(path)) is not None]
    return max(found, key=lambda state: state["reports"], default=None)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
    start = len(_MAGIC) + _CHECKSUM_BYTES
    checksum = zlib.crc32(memoryview(content)[start:]).to_bytes(_CHECKSUM_BYTES, "big")
    if content[:start] != _MAGIC + checksum:
        logger.warning("%s: its checksum does not fit; the checkpoint before it is used", path)
        return None
    return torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
