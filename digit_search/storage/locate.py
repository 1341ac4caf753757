"""Runs wherever they are kept: in a folder, or in an object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from digit_search.files.object_store import Remote, is_uri, parse_location
from digit_search.run.layout import RunFolder, check_new_run, check_run_name, create_run_folder, open_run_folder
from digit_search.storage.remote_run import check_new_remote_run, remote_run, snapshot

Results = Path | Remote
"""Where runs are kept, each in a folder of its name."""


def check_new(results: Results, name: str) -> None:
    """See that a new run can have this name; make nothing.

    Raises:
        RunFolderError: if it cannot.
    """
    if isinstance(results, Path):
        check_new_run(results, name)
    else:
        check_new_remote_run(results.child(check_run_name(name)))


def create(results: Results, name: str) -> RunFolder:
    """The folder of a new run.

    Raises:
        RunFolderError: if the name is taken, or the folder cannot be made.
    """
    if isinstance(results, Path):
        return create_run_folder(results, name)
    return remote_run(results.child(check_run_name(name)), is_new=True)


def _place(run: str, results: Results) -> Results:
    """Where a run is: it is given by its own URI, or by its name among remote results; a path or a name is a local one's."""
    if is_uri(run):
        return parse_location(run)
    return results if isinstance(results, Path) else results.child(check_run_name(run))


def find(run: str, results: Results) -> RunFolder:
    """A run to work on, by its name, its folder or its URI.

    Raises:
        RunFolderError: if there is none; of one in a store, `locked` tells.
    """
    place = _place(run, results)
    return open_run_folder(run, place) if isinstance(place, Path) else remote_run(place)


@contextmanager
def reading(run: str, results: Results) -> Iterator[RunFolder]:
    """A run to read, also while another process works on it, and to write a report into.

    Raises:
        RunFolderError: if there is none.
    """
    place = _place(run, results)
    if isinstance(place, Path):
        yield open_run_folder(run, place)
    else:
        with snapshot(place) as folder:
            yield folder


def split_file(file: Results) -> tuple[Results, str]:
    """The folder of a file, and the file's name in there."""
    return (file.parent, file.name) if isinstance(file, Path) else file.split()


def display_path(place: Results, name: str) -> str:
    """The path or URI of a file as messages show it."""
    return str(place / name) if isinstance(place, Path) else place.display_uri(name)


@contextmanager
def writing(place: Results) -> Iterator[Path]:
    """A folder to write files into that shall lie in that place."""
    if isinstance(place, Path):
        yield place
    else:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
            for path in sorted(Path(temporary).iterdir()):
                place.upload(path, path.name)
