"""A store that can fail. It keeps its objects in a local folder, and pyarrow uses it like any of its file systems."""

import io
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs


class Upload(io.BytesIO):
    """An object that appears whole once it is closed, as in a real store. Its temporary file is outside of the store."""

    def __init__(self, path: Path, store: Path) -> None:
        super().__init__()
        self._path, self._store = path, store

    def close(self) -> None:
        if not self.closed:
            with tempfile.NamedTemporaryFile(dir=self._store.parent, delete=False) as file:
                file.write(self.getvalue())
            os.replace(file.name, self._path)
        super().close()


class FlakyStore(fs.FileSystemHandler):
    """Accepts files without folders, as an object store does. It lists the requests that it did, and fails when a test says so."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._local = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.done: list[str] = []
        self.failures_left = 0
        """This many of the next requests fail with an error of the network."""

    def uri(self, name: str) -> str:
        return f"s3://bucket/{name}"

    def _request(self, request: str) -> None:
        if self.failures_left > 0:
            self.failures_left -= 1
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation")
        self.done.append(request)

    def get_type_name(self):
        return "flaky"

    def get_file_info(self, paths):
        return self._local.get_file_info(paths)

    def get_file_info_selector(self, selector):
        self._request("list")
        return self._local.get_file_info(selector)

    def open_input_stream(self, path):
        self._request(f"get {path}")
        return self._local.open_input_stream(path)

    def open_output_stream(self, path, metadata):
        self._request(f"put {path}")
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        return pa.PythonFile(Upload(self._folder / path, self._folder), mode="w")

    def delete_file(self, path):
        self._request(f"delete {path}")
        self._local.delete_file(path)

    def _unused(self, *arguments, **options):
        raise NotImplementedError

    normalize_path = create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _unused
    move = copy_file = open_input_file = open_append_stream = _unused
