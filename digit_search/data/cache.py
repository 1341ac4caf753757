"""Parsed tables, kept as Arrow IPC files under the fingerprint of their CSV, so that a second run does not parse again.

Nothing in the cache is trusted: what is damaged, stale or foreign is parsed again. Nothing in it is needed: where it cannot be written,
a warning says so and the run goes on.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pyarrow as pa

from digit_search.data.reader import DEFAULT_MAX_CSV_BYTES, read_test, read_train
from digit_search.data.table import NUM_CLASSES, TEST_SCHEMA, TRAIN_SCHEMA, label_view, pixel_view
from digit_search.errors import DataError
from digit_search.files.bounded_io import MAX_JSON_BYTES, parse_json, read_bounded

_FORMAT = b"1"
_MAX_TABLES = 8
"""The oldest beyond this are removed; a table of 42,000 rows takes 33 MB."""
_SETTLED_NS = 2 * 10**9
"""A file that changed so shortly before it was looked at may change again within the same tick of its file system's clock."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TABLE = re.compile(r"(train|test)-[0-9a-f]{64}\.arrow(\..+)?")
_log = logging.getLogger(__name__)


def resolve_cache_dir(setting: str) -> Path | None:
    """The folder that `data.cache_dir` means: `auto` is the user's cache folder, and the empty string no cache."""
    if setting == "auto":
        return platformdirs.user_cache_path("digit_search")
    return Path(setting).expanduser() if setting else None


def fingerprint(path: Path) -> str:
    """SHA-256 of the file as it lies on the disk, 64 hexadecimal digits.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; mend its permissions or choose another folder") from error


def file_stamp(path: Path) -> list[int]:
    """Size, times and place of a file: something of it changes whenever the file is written or replaced.

    The change time (ctime) counts because the modification time can be set back.

    Raises:
        DataError: if there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; the data folder wants train.csv and test.csv, or the same with .gz"
        ) from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _checksum(table: pa.Table) -> bytes:
    """CRC-32 of the labels and pixels. It takes 9 ms for 42,000 rows, SHA-256 three times as long."""
    labels = label_view(table) if "label" in table.column_names else b""
    return b"%08x" % zlib.crc32(pixel_view(table), zlib.crc32(labels))


def _table_file(cache_dir: Path, schema: pa.Schema, digest: str) -> Path:
    return cache_dir / f"{'train' if schema == TRAIN_SCHEMA else 'test'}-{digest}.arrow"


def _is_intact(table: pa.Table, schema: pa.Schema, digest: str) -> bool:
    if not table.schema.equals(schema) or any(column.num_chunks != 1 or column.null_count for column in table.columns):
        return False
    table.validate(full=True)
    expected = {b"format": _FORMAT, b"fingerprint": digest.encode(), b"crc32": _checksum(table)}
    labels_fit = schema != TRAIN_SCHEMA or label_view(table).max() < NUM_CLASSES
    return table.schema.metadata == expected and labels_fit


def load_table(cache_dir: Path, schema: pa.Schema, digest: str) -> pa.Table | None:
    """Map a kept table into memory; None if there is none, or it is not exactly what was kept."""
    file = _table_file(cache_dir, schema, digest)
    try:
        if file.is_symlink() or not file.is_file():
            return None
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_file(source).read_all()
        if _is_intact(table, schema, digest):
            return table.replace_schema_metadata(None)
        problem = "its content is not what was kept"
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = str(error)
    _log.warning("%s: is damaged (%s), so the CSV is parsed again", file, problem)
    return None


def _write_whole(file: Path, write: Callable[[str], object]) -> None:
    """Let `write` fill a temporary file of a name that nobody else has, then put it in the place of `file`."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    os.close(descriptor)
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)


def store_table(cache_dir: Path, table: pa.Table, digest: str) -> None:
    """Keep a table, and remove the oldest ones beyond `_MAX_TABLES`.

    Raises:
        OSError: if the folder does not take it.
    """
    metadata = {"format": _FORMAT, "fingerprint": digest, "crc32": _checksum(table)}

    def write(temporary: str) -> None:
        kept = table.replace_schema_metadata(metadata)
        with pa.OSFile(temporary, "wb") as sink, pa.ipc.new_file(sink, kept.schema) as writer:
            writer.write_table(kept)

    cache_dir.mkdir(parents=True, exist_ok=True)
    _write_whole(_table_file(cache_dir, table.schema, digest), write)
    _remove_oldest(cache_dir)


def _remove_oldest(cache_dir: Path) -> None:
    # The pattern takes in the temporary files that a killed process left. Another process may remove the same files at the same time.
    with contextlib.suppress(FileNotFoundError):
        ours = (file for file in cache_dir.glob("t*-*.arrow*") if _TABLE.fullmatch(file.name))
        by_age = sorted(ours, key=lambda file: file.lstat().st_mtime_ns, reverse=True)
        for file in by_age[_MAX_TABLES:]:
            file.unlink()


def _stamp_file(cache_dir: Path, path: Path) -> Path:
    return cache_dir / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.stamp.json"


def recall_fingerprint(cache_dir: Path, path: Path) -> str | None:
    """The fingerprint that the file had, if nothing about it has changed since; None where that is not certain.

    Hashing 77 MB takes 60 ms, four times as long as loading the table.
    """
    try:
        remembered = parse_json(read_bounded(_stamp_file(cache_dir, path), MAX_JSON_BYTES))
        digest, stamp, looked_at_ns = str(remembered["fingerprint"]), list(remembered["stamp"]), int(remembered["looked_at_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    _, modified_ns, changed_ns, *_ = current = file_stamp(path)
    if not _DIGEST.fullmatch(digest):
        return None
    return digest if stamp == current and max(modified_ns, changed_ns) + _SETTLED_NS < looked_at_ns else None


def remember_fingerprint(cache_dir: Path, path: Path, *, stamp: list[int], looked_at_ns: int, digest: str) -> None:
    """Keep the fingerprint of a file that had this stamp at that moment.

    Raises:
        OSError: if the folder does not take it.
    """
    content = json.dumps({"fingerprint": digest, "stamp": stamp, "looked_at_ns": looked_at_ns}).encode()
    _write_whole(_stamp_file(cache_dir, path), lambda temporary: Path(temporary).write_bytes(content))


def read_cached(path: Path, *, labelled: bool, cache_dir: Path | None, max_csv_bytes: int = DEFAULT_MAX_CSV_BYTES) -> tuple[pa.Table, str]:
    """Read train.csv (`labelled`) or test.csv, from the cache where it is there, and tell its fingerprint.

    Raises:
        DataError: if the CSV is refused, or changes while it is read.
    """
    read, schema = (read_train, TRAIN_SCHEMA) if labelled else (read_test, TEST_SCHEMA)
    looked_at_ns, stamp = time.time_ns(), file_stamp(path)
    known = recall_fingerprint(cache_dir, path) if cache_dir else None
    kept = load_table(cache_dir, schema, known) if known else None
    if kept is not None:
        return kept, known
    digest = fingerprint(path)
    kept = load_table(cache_dir, schema, digest) if cache_dir and digest != known else None
    table = read(path, max_csv_bytes=max_csv_bytes) if kept is None else kept
    if file_stamp(path) != stamp:
        raise DataError(f"{path}: expected a file that rests, found one that changed while it was read; try again when it is complete")
    if cache_dir:
        try:
            if kept is None:
                store_table(cache_dir, table, digest)
            remember_fingerprint(cache_dir, path, stamp=stamp, looked_at_ns=looked_at_ns, digest=digest)
        except (pa.ArrowException, OSError) as error:
            _log.warning(
                "%s: the parsed table cannot be kept (%s), so the next run parses again; mend it or set data.cache_dir", cache_dir, error
            )
    return table, digest
