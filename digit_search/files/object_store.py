"""Folders in an object store: `s3://BUCKET/...`, `gs://BUCKET/...`, and `file:///...` for a mounted disk. Only this module uses pyarrow.fs.

An object appears whole or not at all, and nothing can be appended to it. pyarrow finds the credentials in the environment, in ~/.aws, or by
the role of the machine.
"""

import functools
import io
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from digit_search.errors import RunFolderError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "file")
RETRY_PAUSES_SECONDS = (1.0, 4.0)
"""The pauses between our tries. In each try, the S3 client tries three times itself."""
GCS_RETRY_LIMIT = "retry_limit_seconds=30"
"""Without it, pyarrow 26 tries for 15 minutes."""
S3_TIMEOUTS = {"connect_timeout": 5.0, "request_timeout": 15.0}
"""In seconds; the second is the time without a byte. Without them, a request to a dead machine took over five minutes (pyarrow 26)."""
CHUNK_BYTES = 1 << 22
_FINAL_ERRORS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "not found", "PERMISSION_DENIED", "NOT_FOUND")
"""Parts of error messages after which another try would fail in the same way."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    size: int
    modified_at: float
    """Seconds since the Unix epoch, by the store's clock."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A folder in an object store. The names of its files are relative to it, and may have slashes. It need not exist.

    Every method that sends a request raises StorageError if the store refuses or cannot be reached. A file that could not be written keeps
    its old content.
    """

    uri: str
    """As the user gave it, without a slash at the end of its path. Options for pyarrow follow a `?`."""

    @property
    def name(self) -> str:
        """The last part of the path; "" for a whole bucket."""
        return self.split()[1]

    def child(self, name: str) -> "Remote":
        parts = urlsplit(self.uri)
        return Remote(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    def split(self) -> tuple["Remote", str]:
        """The folder that this one is in, and its name there."""
        parts = urlsplit(self.uri)
        folder, _, name = parts.path.rpartition("/")
        return Remote(urlunsplit(parts._replace(path=folder))), name

    def display_uri(self, name: str) -> str:
        """The URI of a file in this folder as messages show it: without the options for pyarrow."""
        return urlunsplit(urlsplit(self.child(name).uri)._replace(query=""))

    def put(self, name: str, content: bytes) -> None:
        self.write(name, io.BytesIO(content))

    def upload(self, path: Path, name: str, max_bytes: int | None = None) -> None:
        """Copy a local file to the store, or only its first `max_bytes` bytes.

        Raises:
            FileNotFoundError: if the local file does not exist.
            StorageError: also if it cannot be read.
        """
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}. Fix the disk or the permissions.") from error
        with file:
            self.write(name, file, max_bytes)

    def write(self, name: str, source: BinaryIO, max_bytes: int | None = None) -> None:
        """Write a file with the content of `source`, or only its first `max_bytes` bytes. `source` is read again if a try fails."""

        def write(filesystem: "FileSystem", path: str) -> None:
            # An object appears when it is complete, but a local file when it is opened.
            is_local = filesystem.type_name == "local"
            target = f"{path}.{uuid.uuid4().int}.tmp" if is_local else path
            if is_local:
                filesystem.create_dir(path.rpartition("/")[0])
            source.seek(0)
            with filesystem.open_output_stream(target) as stream:
                _copy(source, stream, max_bytes)
            if is_local:
                filesystem.move(target, path)

        self._request(name, "written", write)

    def get(self, name: str, max_bytes: int) -> bytes | None:
        """The content of a file; None if it does not exist. Raises StorageError if it is larger than `max_bytes`."""
        content = io.BytesIO()
        return content.getvalue() if self._read(name, content, max_bytes) else None

    def download(self, name: str, path: Path, max_bytes: int) -> bool:
        """Copy a file from the store to a new local file; return False if it does not exist.

        Raises:
            StorageError: also if it is larger than `max_bytes`.
            OSError: if the local file exists already, or cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            exists = self._read(name, file, max_bytes)
        if not exists:
            path.unlink()
        return exists

    def _read(self, name: str, target: BinaryIO, max_bytes: int) -> bool:
        def read(filesystem: "FileSystem", path: str) -> bool:
            target.seek(0)
            target.truncate()
            try:
                with filesystem.open_input_stream(path) as stream:
                    _copy(stream, target, max_bytes + 1)
            except FileNotFoundError:
                return False
            return True

        exists = self._request(name, "read", read)
        if target.tell() > max_bytes:
            raise StorageError(f"{self.display_uri(name)}: expected at most {max_bytes} bytes, found more")
        return exists

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""

        def delete(filesystem: "FileSystem", path: str) -> None:
            with suppress(FileNotFoundError):
                filesystem.delete_file(path)

        self._request(name, "deleted", delete)

    def files(self) -> Mapping[str, RemoteFile]:
        """All files in this folder and below, by their relative names."""

        def list_files(filesystem: "FileSystem", path: str) -> Mapping[str, RemoteFile]:
            from pyarrow.fs import FileSelector, FileType

            folder = path.rstrip("/")
            infos = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
            return {
                info.path.removeprefix(f"{folder}/"): RemoteFile(info.size, (info.mtime_ns or 0) / 1e9)
                for info in infos
                if info.type == FileType.File
            }

        return self._request("", "listed", list_files)

    def _request(self, name: str, verb: str, action: Callable[["FileSystem", str], Result]) -> Result:
        """Call `action` with the file system and the file's path in it. Try again after an error that the network may have caused."""
        from pyarrow import ArrowException

        pauses = list(RETRY_PAUSES_SECONDS)
        while True:
            try:
                filesystem, root = connect(self.uri)
                return action(filesystem, f"{root}/{name}" if name else root)
            except (OSError, ArrowException) as error:
                if not pauses or _is_final(error):
                    uri = self.display_uri(name) if name else self.uri
                    raise StorageError(f"{uri}: cannot be {verb}: {_summary(error)}. {_advice(error)}") from error
            time.sleep(pauses.pop(0))


def is_uri(text: str) -> bool:
    """Whether this is the URI of a folder in a store, and not a local path."""
    return "://" in text


def parse_location(text: str) -> Path | Remote:
    """The local folder, or the folder in a store, that the user means.

    Raises:
        RunFolderError: if it is a URI, but not one of a folder in a store that we know.
    """
    if not is_uri(text):
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        raise RunFolderError(f"{text}: expected a folder, or a URI that begins with {', '.join(f'{name}://' for name in SCHEMES)}")
    if "@" in parts.netloc and parts.netloc.partition("@")[0] != "anonymous":
        # The URI is printed and written to files.
        raise RunFolderError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}: expected no credentials in a URI, found some; "
            "put them into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS) or ~/.aws"
        )
    names = unquote(parts.path).rstrip("/").split("/")[1:]
    is_folder = bool(names) and not any(name in ("", ".", "..") for name in names)
    has_bucket, needs_bucket = bool(parts.netloc), parts.scheme != "file"
    if not is_folder or has_bucket != needs_bucket or parts.fragment:
        raise RunFolderError(f"{text}: expected a folder in a bucket, e.g. s3://bucket/results or file:///mnt/results")
    return Remote(urlunsplit(parts._replace(path=parts.path.rstrip("/"))))


def connect(uri: str) -> tuple["FileSystem", str]:
    """The file system of a URI, and the path in it."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.scheme == "file":
        return _bucket(urlunsplit(parts._replace(path="/")))[0], path
    filesystem, bucket = _bucket(urlunsplit(parts._replace(path="")))
    return filesystem, f"{bucket}{path}"


@functools.lru_cache
def _bucket(uri: str) -> tuple["FileSystem", str]:
    # Cached, because pyarrow asks for the region of a bucket each time, unless the URI has it.
    from pyarrow.fs import FileSystem

    if uri.startswith("gs:") and "retry_limit_seconds" not in uri:
        uri += f"{'&' if '?' in uri else '?'}{GCS_RETRY_LIMIT}"
    filesystem, bucket = FileSystem.from_uri(uri)
    return (_with_timeouts(filesystem, uri) if filesystem.type_name == "s3" else filesystem), bucket


def _with_timeouts(filesystem: "FileSystem", uri: str) -> "FileSystem":
    """The S3 file system of this URI with timeouts, which a URI cannot have. `filesystem` is what pyarrow made of the URI.

    pyarrow has already refused unknown options. We leave out those for creating and deleting buckets, which we never do.
    """
    from pyarrow.fs import S3FileSystem

    options = dict(parse_qsl(urlsplit(uri).query))
    return S3FileSystem(
        anonymous=urlsplit(uri).username == "anonymous",
        region=filesystem.region,
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        tls_ca_file_path=options.get("tls_ca_file_path"),
        # Without this, pyarrow 26 sends three requests for a small object instead of one.
        allow_delayed_open=options.get("allow_delayed_open", "true").lower() in ("true", "1"),
        **S3_TIMEOUTS,
    )


def _copy(source: BinaryIO, target: BinaryIO, max_bytes: int | None) -> None:
    bytes_left = sys.maxsize if max_bytes is None else max_bytes
    while chunk := source.read(min(CHUNK_BYTES, bytes_left)):
        target.write(chunk)
        bytes_left -= len(chunk)


def _is_final(error: Exception) -> bool:
    return isinstance(error, PermissionError | ValueError) or any(part in str(error) for part in _FINAL_ERRORS)


def _summary(error: Exception) -> str:
    """The error in one line of at most 400 characters."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:400] or type(error).__name__


def _advice(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ValueError):
        return "Fix the URI."
    if "NO_SUCH_BUCKET" in text or ("Bucket" in text and "not found" in text):
        return "Create the bucket, or name another one."
    if isinstance(error, PermissionError) or any(word in text for word in ("ACCESS", "SIGNATURE", "PERMISSION", "redentials")):
        return "Check that this machine has the credentials, and that they allow it to list, read, write and delete there."
    return "Check the network, the endpoint and the bucket."
