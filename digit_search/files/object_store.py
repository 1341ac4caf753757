"""Folders in an object store: `s3://BUCKET/...`, `gs://BUCKET/...`, and `file:///...` for what is mounted. All of pyarrow.fs is known here.

An object appears whole or not at all, and cannot be appended to. Credentials are found as pyarrow finds them: in the environment, in
~/.aws, or by the machine's role.
"""

import functools
import io
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from digit_search.errors import RunFolderError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "file")
RETRY_PAUSES_SECONDS = (1.0, 4.0)
"""Between tries; the S3 client makes three of its own in each."""
DEFAULT_OPTIONS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=30"}
"""pyarrow 26 takes three requests instead of one for a small object, and goes on trying for 15 minutes."""
S3_TIMEOUTS = {"connect_timeout": 5.0, "request_timeout": 15.0}
"""In seconds, the second without a byte. Without them a request to a machine that is gone took more than five minutes (pyarrow 26)."""
CHUNK_BYTES = 1 << 22
_FINAL = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "not found", "PERMISSION_DENIED", "NOT_FOUND")
"""In what the clients say, where another try would be answered alike."""


@dataclass(frozen=True, slots=True)
class FileSeen:
    """One file of a listing."""

    size: int
    modified_at: float
    """Seconds since the Unix epoch, by the store's clock."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A folder in an object store, and the files below it by their relative names. It need not exist."""

    uri: str
    """As the user gave it, without a slash at the end of its path; options of pyarrow's stand behind a `?`."""

    @property
    def name(self) -> str:
        """The last part of the path; "" for a whole bucket."""
        return self.split()[1]

    def child(self, name: str) -> "Remote":
        """The folder of this name in here."""
        parts = urlsplit(self.uri)
        return Remote(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    def split(self) -> tuple["Remote", str]:
        """What this is in, and its name there."""
        parts = urlsplit(self.uri)
        folder, _, name = parts.path.rpartition("/")
        return Remote(urlunsplit(parts._replace(path=folder))), name

    def display_uri(self, name: str) -> str:
        """The URI of a file in this folder as messages show it: without the options for pyarrow."""
        return urlunsplit(urlsplit(self.child(name).uri)._replace(query=""))

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Write a file whole.

        Raises:
            StorageError: if the store does not take it; the old one is still there then.
        """
        self._write(name, lambda: io.BytesIO(content), len(content))

    def upload(self, path: Path, name: str, max_bytes: int | None = None) -> None:
        """Copy a local file here, or its beginning.

        Raises:
            FileNotFoundError: if there is no such local file.
            StorageError: if it cannot be read, or the store does not take it.
        """
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}. Mend the disk or its permissions.") from error
        with file:

            def from_start() -> BinaryIO:
                file.seek(0)
                return file

            self._write(name, from_start, max_bytes)

    def _write(self, name: str, reader: Callable[[], BinaryIO], max_bytes: int | None) -> None:
        def write(filesystem: "FileSystem", path: str) -> None:
            # A local file appears as it is written; an object when it is closed.
            is_local = filesystem.type_name == "local"
            target = f"{path}.{os.getpid()}.tmp" if is_local else path
            if is_local:
                filesystem.create_dir(path.rpartition("/")[0])
            with filesystem.open_output_stream(target) as stream:
                _copy(reader(), stream, max_bytes)
            if is_local:
                filesystem.move(target, path)

        self._ask(name, "written", write)

    def get(self, name: str, max_bytes: int) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            StorageError: if it cannot be read or is larger than `max_bytes`.
        """
        content = io.BytesIO()
        return content.getvalue() if self._read(name, content, max_bytes) else None

    def download(self, name: str, path: Path, max_bytes: int) -> bool:
        """Copy a file from here; whether there is one.

        Raises:
            StorageError: if it cannot be read, is larger than `max_bytes`, or the disk does not take it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            found = self._read(name, file, max_bytes)
        if not found:
            path.unlink()
        return found

    def _read(self, name: str, into: BinaryIO, max_bytes: int) -> bool:
        def read(filesystem: "FileSystem", path: str) -> bool:
            into.seek(0)
            into.truncate()
            try:
                with filesystem.open_input_stream(path) as stream:
                    _copy(stream, into, max_bytes + 1)
            except FileNotFoundError:
                return False
            return True

        found = self._ask(name, "read", read)
        if into.tell() > max_bytes:
            raise StorageError(f"{self.display_uri(name)}: expected at most {max_bytes} bytes, found more")
        return found

    def delete(self, name: str) -> None:
        """Delete a file, if there is one.

        Raises:
            StorageError: if the store does not let us.
        """

        def delete(filesystem: "FileSystem", path: str) -> None:
            with suppress(FileNotFoundError):
                filesystem.delete_file(path)

        self._ask(name, "deleted", delete)

    def files(self) -> Mapping[str, FileSeen]:
        """All files in here and below, by their relative names.

        Raises:
            StorageError: if they cannot be listed.
        """

        def look(filesystem: "FileSystem", path: str) -> Mapping[str, FileSeen]:
            from pyarrow.fs import FileSelector, FileType

            folder = path.rstrip("/")
            found = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
            return {
                info.path.removeprefix(f"{folder}/"): FileSeen(info.size, (info.mtime_ns or 0) / 1e9)
                for info in found
                if info.type == FileType.File
            }

        return self._ask("", "listed", look)

    def _ask(self, name: str, done: str, action: Callable[["FileSystem", str], Any]) -> Any:
        """Do something with a file, a few times over where the network may be the reason that it fails."""
        from pyarrow import ArrowException

        place = self.display_uri(name) if name else self.uri
        for pause in (*RETRY_PAUSES_SECONDS, None):
            try:
                filesystem, root = connect(self.uri)
                return action(filesystem, f"{root}/{name}" if name else root)
            except (OSError, ArrowException) as error:
                if pause is None or _is_final(error):
                    raise StorageError(f"{place}: cannot be {done}: {_gist(error)}. {_advice(error)}") from error
                time.sleep(pause)
        raise AssertionError("unreachable")


def is_uri(text: str) -> bool:
    """Whether this names a place in a store, and not a folder."""
    return "://" in text


def parse_location(text: str) -> Path | Remote:
    """The folder, or the place in a store, that the user means.

    Raises:
        RunFolderError: if it is a URI that cannot be one of ours.
    """
    if not is_uri(text):
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        raise RunFolderError(f"{text}: expected a folder, or a URI that begins with {', '.join(f'{name}://' for name in SCHEMES)}")
    if "@" in parts.netloc and parts.netloc.partition("@")[0] != "anonymous":
        # It would be printed, and written into files.
        raise RunFolderError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}: expected no credentials in a URI, found some; "
            "put them into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS) or ~/.aws"
        )
    names = unquote(parts.path).rstrip("/").split("/")[1:]
    if not names or any(name in ("", ".", "..") for name in names) or bool(parts.netloc) is (parts.scheme == "file") or parts.fragment:
        raise RunFolderError(f"{text}: expected a folder in a bucket, e.g. s3://bucket/results or file:///mnt/results")
    return Remote(urlunsplit(parts._replace(path=parts.path.rstrip("/"))))


def connect(uri: str) -> tuple["FileSystem", str]:
    """The file system of a URI, and the path in there."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    filesystem, bucket = _bucket(urlunsplit(parts._replace(path="/" if parts.scheme == "file" else "")))
    return filesystem, path if parts.scheme == "file" else f"{bucket}{path}"


@functools.lru_cache
def _bucket(uri: str) -> tuple["FileSystem", str]:
    # Kept: for a bucket without a region in its URI, pyarrow asks where it is each time.
    from pyarrow.fs import FileSystem

    option = DEFAULT_OPTIONS.get(urlsplit(uri).scheme, "")
    if option and option.partition("=")[0] not in uri:
        uri += f"{'&' if '?' in uri else '?'}{option}"
    filesystem, path = FileSystem.from_uri(uri)
    if filesystem.type_name == "s3":
        # A URI cannot hold them, nor the three tries that S3FileSystem makes by itself; how it is pickled tells all of its options.
        make, (options,) = filesystem.__reduce__()
        filesystem = make(options | S3_TIMEOUTS)
    return filesystem, path


def _copy(source: Any, target: Any, max_bytes: int | None) -> None:
    left = float("inf") if max_bytes is None else max_bytes
    while left > 0 and (chunk := source.read(int(min(CHUNK_BYTES, left)))):
        target.write(chunk)
        left -= len(chunk)


def _is_final(error: Exception) -> bool:
    return isinstance(error, PermissionError | ValueError) or any(word in str(error) for word in _FINAL)


def _gist(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:400] or type(error).__name__


def _advice(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ValueError):
        return "Mend the URI."
    if "NO_SUCH_BUCKET" in text or ("Bucket" in text and "not found" in text):
        return "Make the bucket, or name another."
    if isinstance(error, PermissionError) or any(word in text for word in ("ACCESS", "SIGNATURE", "PERMISSION", "redentials")):
        return "See that this machine has the credentials, and that they may list, read, write and delete there."
    return "See that the network, the endpoint and the bucket are there."
