"""Finds and creates runs, which are in a local folder or in an object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from digit_search.files.object_store import Remote, is_uri, parse_location
from digit_search.run.layout import RunFolder, check_new_run, check_run_name, create_run_folder, open_run_folder
from digit_search.storage.remote_run import check_new_remote_run, remote_run, snapshot

Results = Path | Remote
"""The folder of all runs; each run has a folder in it."""


def check_new(results: Results, name: str) -> None:
    """Raise RunFolderError if a new run cannot have this name. Nothing is created."""
    if isinstance(results, Path):
        check_new_run(results, name)
    else:
        check_new_remote_run(results.child(check_run_name(name)))


def create(results: Results, name: str) -> RunFolder:
    """Create the folder of a new run. Raises RunFolderError if it cannot be created; for a store, `locked` does."""
    if isinstance(results, Path):
        return create_run_folder(results, name)
    return remote_run(results.child(check_run_name(name)), is_new=True)


def _locate(run: str, results: Results) -> Results:
    """The folder of a run in a store, given by its URI or by its name in `results`; for a local run, the local `results`."""
    if is_uri(run):
        return parse_location(run)
    return results if isinstance(results, Path) else results.child(check_run_name(run))


def find(run: str, results: Results) -> RunFolder:
    """A run to work on, by its name, its folder or its URI. Raises RunFolderError if there is none; for a store, `locked` does."""
    location = _locate(run, results)
    return open_run_folder(run, location) if isinstance(location, Path) else remote_run(location)


@contextmanager
def reading(run: str, results: Results) -> Iterator[RunFolder]:
    """A run to read and to write a report into, even while another process works on it. Raises RunFolderError if there is none."""
    location = _locate(run, results)
    if isinstance(location, Path):
        yield open_run_folder(run, location)
    else:
        with snapshot(location) as folder:
            yield folder


def split_file(file: Results) -> tuple[Results, str]:
    """The folder of a file, and the name of the file in it."""
    return (file.parent, file.name) if isinstance(file, Path) else file.split()


def display_path(folder: Results, name: str) -> str:
    """The path or URI of a file as messages show it."""
    return str(folder / name) if isinstance(folder, Path) else folder.display_uri(name)


@contextmanager
def writing(folder: Results) -> Iterator[Path]:
    """A local folder to write files into. They are in `folder` at the end."""
    if isinstance(folder, Path):
        yield folder
    else:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
            for path in sorted(Path(temporary).iterdir()):
                folder.upload(path, path.name)
