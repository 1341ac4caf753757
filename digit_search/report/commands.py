"""The commands that a reader can copy."""

import shlex
from pathlib import Path

from digit_search.run.layout import RunFolder


def _shown(folder: RunFolder, path: Path) -> str:
    """The path as one would type it here: relative to the working directory where it lies inside, quoted where a shell needs it.

    Of a run in an object store it is the name alone, since nobody knows yet where it will be copied to.
    """
    if not folder.is_local:
        return path.name
    absolute = path.absolute()
    return shlex.quote(str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path))


def repeat_command(folder: RunFolder) -> str:
    """What runs the same search once more."""
    return f"python tune_main.py --config {_shown(folder, folder.config)} --name {shlex.quote(folder.name[:94] + '-again')}"


def submit_command(folder: RunFolder) -> str:
    """What hands the solution in at Kaggle."""
    message = shlex.quote(f"digit_search {folder.name}")
    return f"kaggle competitions submit -c digit-recognizer -f {_shown(folder, folder.solution)} -m {message}"
