"""Bytes of a CSV in, blocks of whole lines out: unpacked, bounded, and read ahead on a second thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from digit_search.errors import DataError

MAX_LINE_BYTES = 1 << 20
"""A row of 785 quoted numbers takes less than 5 KiB, whatever the digits, so nobody needs more; ten million columns take 100 MiB."""
PLAIN_BLOCK_BYTES = 1 << 16
"""Small enough for the processor's cache, and for memory that the C library reuses: 1 MiB blocks took four times as long."""
PACKED_BLOCK_BYTES = 1 << 20


def _open(path: Path, block_bytes: int) -> pa.NativeFile:
    try:
        # Anything but a regular file may never end (/dev/zero) or never begin (a pipe).
        if not path.is_file():
            found = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing"
            raise DataError(
                f"{path}: expected a CSV file, found {found}; the data folder wants train.csv and test.csv, or the same with .gz"
            )
        return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None, buffer_size=block_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; mend its permissions or choose another folder") from error


def _plain_chunks(path: Path) -> Iterator[bytes]:
    with _open(path, PLAIN_BLOCK_BYTES) as stream:
        while chunk := stream.read(PLAIN_BLOCK_BYTES):
            yield chunk


def _unpacked_chunks(path: Path) -> Iterator[bytes]:
    """While one chunk is decoded, the next is unpacked on a thread of its own."""
    with _open(path, PACKED_BLOCK_BYTES) as stream, ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(stream.read, PACKED_BLOCK_BYTES)
        while chunk := ahead.result():
            ahead = reader.submit(stream.read, PACKED_BLOCK_BYTES)
            yield chunk


def _bounded(path: Path, max_csv_bytes: int) -> Iterator[bytes]:
    """The chunks, as long as the whole stays within `max_csv_bytes`."""
    num_bytes = 0
    try:
        with closing(_unpacked_chunks(path) if path.suffix == ".gz" else _plain_chunks(path)) as chunks:
            for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > max_csv_bytes:
                    raise DataError(
                        f"{path}: expected at most {max_csv_bytes} bytes of CSV, found more; "
                        "if the file is meant to be so large, raise data.max_csv_bytes (of predict: --max-csv-bytes)"
                    )
                yield chunk
    except OSError as error:
        what = "expected gzip, found something else or a file cut short" if path.suffix == ".gz" else "cannot be read"
        raise DataError(f"{path}: {what} after {num_bytes} bytes of CSV ({error}); download it again") from error


def line_blocks(path: Path, max_csv_bytes: int) -> Iterator[bytes]:
    r"""Yield the file's lines in blocks, each ending with `\n`, without the byte-order mark and without blank lines at the end.

    Raises:
        DataError: if the file cannot be read or unpacked, unpacks to more than `max_csv_bytes`, or a line is longer than `MAX_LINE_BYTES`.
    """
    pending = b""
    first = True
    with closing(_bounded(path, max_csv_bytes)) as chunks:
        for chunk in chunks:
            text = pending + (chunk.removeprefix(b"\xef\xbb\xbf") if first else chunk)
            first = False
            # The last line that is not blank is held back: only more text can tell whether it and the blank lines after it are the end.
            cut = text.rstrip(b"\r\n").rfind(b"\n") + 1
            pending = text[cut:]
            if len(pending) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path}: expected lines of at most {MAX_LINE_BYTES} bytes, found a longer one or as many blank ones; is it a CSV?"
                )
            if cut:
                yield text[:cut]
    if last := pending.rstrip(b"\r\n"):
        yield last + b"\n"
