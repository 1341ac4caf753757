"""Files of tensors and plain values in torch.save's format. Every such file is read here, also one from a stranger.

`weights_only=True` runs no code from a file, but torch 2.14.1 lets a small file take any amount of memory: it unpacks compressed records,
reads one record as often as the directory lists it, and calls `bytearray` with any size. `_check_archive` refuses all three.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from typing import IO, Any, Protocol, cast

import torch

from digit_search.errors import DataError

MAX_TENSOR_BYTES = 1 << 29
"""A checkpoint has about 100 MB. No setting changes the size of the model by much."""
MAX_PICKLE_BYTES = 1 << 24
"""Of the part that is not tensors; a checkpoint's has some 100 KB. It bounds the memory of plain values."""
SAVED_NAMES = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage")
"""What the pickle of tensors and plain values refers to, as "module name"."""


class BinaryWriter(Protocol):
    """What torch.save needs of a file."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


def save_tensors(state: Mapping[str, Any], file: BinaryWriter) -> None:
    """Call torch.save, but raise the file's own error: torch 2.14.1 raises a RuntimeError for a full disk, and even for a Ctrl-C."""
    try:
        torch.save(dict(state), cast(IO[bytes], file))
    except RuntimeError as error:
        if isinstance(error.__context__, OSError | KeyboardInterrupt):
            raise error.__context__ from error
        raise


def load_tensors(content: bytes | memoryview) -> Any:
    """Read what `torch.save` wrote: tensors, on the CPU, and plain values.

    Raises:
        DataError: if it is anything else, with the reason.
    """
    file = io.BytesIO(content)
    _check_archive(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    # For a damaged file torch.load raises errors of many types; to the user they all mean the same.
    except Exception as error:
        raise DataError(f"found something else ({type(error).__name__})") from error


def _check_archive(file: io.BytesIO) -> None:
    """Refuse a file that torch.save does not write, and that could take more memory than its own size."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_sizes(members, len(file.getbuffer()))
            for member in members:
                if member.filename.endswith("data.pkl"):
                    del member.CRC  # zipfile then checks none; checkpoints have no valid ones (checkpoint.py)
                    _check_names(archive.read(member))
    except DataError:
        raise
    # For a damaged archive zipfile raises errors of many types, NotImplementedError and struct.error among them.
    except Exception as error:
        raise DataError(f"found something else or a file cut short ({error})") from error
    file.seek(0)


def _check_sizes(members: list[zipfile.ZipInfo], num_bytes: int) -> None:
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise DataError("found a compressed archive, which torch.save does not write")
    if sum(member.file_size for member in members) > num_bytes:
        raise DataError("found an archive that says it holds more than its own size")
    if any(member.filename.endswith("data.pkl") and member.file_size > MAX_PICKLE_BYTES for member in members):
        raise DataError(f"found more than {MAX_PICKLE_BYTES >> 20} MiB that are not tensors")


def _check_names(pickled: bytes) -> None:
    """Refuse a pickle that refers to anything but tensors and their storages. The pickle is only read, never run."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "STACK_GLOBAL" or (opcode.name in ("GLOBAL", "INST") and not SAVED_NAMES.fullmatch(str(argument))):
            raise DataError(f"found a reference to {str(argument)[:100]!r}, which is no tensor")


def describe_problem(value: object, expected: torch.Tensor) -> str:
    """Why a value cannot be used in place of a weight; "" if it can.

    `Tensor.copy_` would silently convert any dtype and layout, so both are checked, and so are NaN and infinity.
    """
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if value.shape != expected.shape:
        return f"the shape {list(value.shape)[:8]} instead of {list(expected.shape)}"
    allowed = {torch.float32, torch.float64, torch.float16, torch.bfloat16} if expected.is_floating_point() else {expected.dtype}
    if value.dtype not in allowed or value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return f"{value.dtype}, {value.layout} on {value.device} instead of {expected.dtype}"
    return "" if bool(torch.isfinite(value).all()) else "a value that is no finite number"
