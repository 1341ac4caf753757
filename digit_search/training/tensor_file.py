"""Files of tensors and plain values, as `torch.save` writes them; the only place where one is read. Nothing in it is run."""

import io
import zipfile
from typing import Any

import torch

from digit_search.errors import DataError

MAX_TENSOR_BYTES = 1 << 29
"""A checkpoint takes about 100 MB. The model is one and the same for all settings, so none makes a file of it larger."""


def load_tensors(content: bytes | memoryview) -> Any:
    """Read what `torch.save` wrote: tensors on the CPU and plain values.

    Raises:
        DataError: if it is anything else, saying what.
    """
    file = io.BytesIO(content)
    _check_archive(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    # torch.load raises whatever its zip reader, its unpickler and the bytes between them come to; each means the same to a user.
    except Exception as error:
        raise DataError(f"found something else ({type(error).__name__})") from error


def _check_archive(file: io.BytesIO) -> None:
    """Refuse what torch.save (since 1.6) does not write: no archive at all, and one that unpacks to more than lies on the disk."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    # A damaged directory comes out as half a dozen kinds of error, NotImplementedError and struct.error among them.
    except Exception as error:
        raise DataError(f"found something else or a file cut short ({error})") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise DataError("found a compressed archive, which torch.save does not write")
    if sum(member.file_size for member in members) > len(file.getbuffer()):
        raise DataError("found an archive that says it holds more than its own size")
    file.seek(0)


def describe_problem(found: object, wanted: torch.Tensor) -> str:
    """Why something cannot take the place of a weight, in words; "" if it can.

    A copy would cast any type and expand any layout silently, so both are checked, and so are NaN and infinity, which predict nothing.
    """
    if not isinstance(found, torch.Tensor):
        return f"a {type(found).__name__}"
    if found.shape != wanted.shape:
        return f"the shape {list(found.shape)[:8]} instead of {list(wanted.shape)}"
    allowed = {torch.float32, torch.float64, torch.float16, torch.bfloat16} if wanted.is_floating_point() else {wanted.dtype}
    if found.dtype not in allowed or found.layout != torch.strided or found.device.type != "cpu" or found.is_quantized:
        return f"{found.dtype}, {found.layout} on {found.device} instead of {wanted.dtype}"
    return "" if bool(torch.isfinite(found).all()) else "a value that is no finite number"
