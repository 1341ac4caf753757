"""From a CSV file to blocks of whole lines: unpacked, limited in size, and gzip read ahead on a second thread."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from digit_search.errors import DataError

MAX_LINE_BYTES = 1 << 20
"""A row of 785 quoted numbers takes less than 5 KiB; ten million columns would take 100 MiB."""
BLOCK_BYTES = 1 << 16
"""Small enough for the CPU's cache, and for glibc to reuse the scratch arrays: 256 KiB took twice as long, and 1 MiB four times."""
UNPACKED_BYTES = 1 << 20
"""How much the second thread unpacks at once."""


def _open(path: Path, buffer_bytes: int) -> pa.NativeFile:
    try:
        # A device may never end (/dev/zero) and a pipe may never begin.
        if not path.is_file():
            found = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing"
            raise DataError(
                f"{path}: expected a CSV file, found {found}; the data folder must hold train.csv and test.csv, or the same with .gz"
            )
        return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None, buffer_size=buffer_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; fix its permissions or choose another folder") from error


def _plain_chunks(path: Path) -> Generator[bytes, None, None]:
    with _open(path, BLOCK_BYTES) as stream:
        while chunk := stream.read(BLOCK_BYTES):
            yield chunk


def _unpacked_chunks(path: Path) -> Generator[bytes, None, None]:
    """While the caller decodes what was unpacked, a second thread unpacks more."""
    with _open(path, UNPACKED_BYTES) as stream, ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(stream.read, UNPACKED_BYTES)
        while unpacked := ahead.result():
            ahead = reader.submit(stream.read, UNPACKED_BYTES)
            for start in range(0, len(unpacked), BLOCK_BYTES):
                yield unpacked[start : start + BLOCK_BYTES]


def _bounded(path: Path, max_csv_bytes: int) -> Generator[bytes, None, None]:
    """The chunks, until they exceed `max_csv_bytes` in total."""
    is_packed = path.suffix == ".gz"
    num_bytes = 0
    try:
        with closing(_unpacked_chunks(path) if is_packed else _plain_chunks(path)) as chunks:
            for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > max_csv_bytes:
                    raise DataError(
                        f"{path}: expected at most {max_csv_bytes} bytes of CSV, found more; "
                        "if it is meant to be larger, increase data.max_csv_bytes (predict: --max-csv-bytes)"
                    )
                yield chunk
    except OSError as error:
        what = "expected gzip, found something else or a truncated file" if is_packed else "cannot be read"
        raise DataError(f"{path}: {what} after {num_bytes} bytes of CSV ({error}); download it again") from error


def line_blocks(path: Path, max_csv_bytes: int) -> Generator[bytes, None, None]:
    r"""Yield the lines in blocks, each ending with `\n`, without the byte-order mark and the blank lines at the end of the file.

    Raises:
        DataError: if the file cannot be read or unpacked, unpacks to more than `max_csv_bytes`, or a line is longer than `MAX_LINE_BYTES`.
    """
    pending = b""
    first = True
    with closing(_bounded(path, max_csv_bytes)) as chunks:
        for chunk in chunks:
            text = pending + (chunk.removeprefix(b"\xef\xbb\xbf") if first else chunk)
            first = False
            # The last line that is not blank waits for the next chunk, which shows whether the blank lines after it end the file.
            cut = text.rstrip(b"\r\n").rfind(b"\n") + 1
            pending = text[cut:]
            if len(pending) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path}: expected lines of at most {MAX_LINE_BYTES} bytes, found a longer line or as many blank ones; is it a CSV?"
                )
            if cut:
                yield text[:cut]
    if last := pending.rstrip(b"\r\n"):
        yield last + b"\n"
