"""Where the digits are read from: the user's folder, the default folder, or the sample in this package."""

import logging
from dataclasses import dataclass
from pathlib import Path

from digit_search.errors import DataError

DEFAULT_FOLDER = Path("data/digit-recognizer")
SAMPLE_FOLDER = Path(__file__).parent / "sample"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DigitSource:
    """The files of one set of digits. They exist, but are not read yet."""

    folder: Path
    train: Path
    test: Path
    answers: Path | None
    """test_labels.csv, the labels of the test digits, if it is in the folder."""
    embedded: bool
    """Whether this is the small sample in this package."""


def find_digits(dir: str) -> DigitSource:
    """Choose the folder and find its files.

    Args:
        dir: a folder; `sample`: the embedded digits; `auto`: `data/digit-recognizer` if it holds a train.csv, else the sample.

    Raises:
        DataError: if the folder, train.csv or test.csv is missing.
    """
    folder = _choose_folder(dir)
    try:
        if not folder.is_dir():
            found = "a file" if folder.exists() else "nothing"
            raise DataError(f"{folder}: expected a folder with train.csv and test.csv, found {found}; --data needs such a folder")
        train, test, answers = _find_csv(folder, "train.csv"), _find_csv(folder, "test.csv"), folder / "test_labels.csv"
        return DigitSource(folder, train, test, answers if answers.exists() else None, embedded=folder == SAMPLE_FOLDER)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; fix its permissions or choose another --data") from error


def _choose_folder(dir: str) -> Path:
    if dir == "auto":
        return DEFAULT_FOLDER if _candidates(DEFAULT_FOLDER, "train.csv") else SAMPLE_FOLDER
    return SAMPLE_FOLDER if dir == "sample" else Path(dir).expanduser()


def _candidates(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]


def _find_csv(folder: Path, name: str) -> Path:
    found = _candidates(folder, name)
    if not found:
        raise DataError(f"{folder}: expected {name} or {name}.gz, found neither; --data needs a folder that holds train.csv and test.csv")
    if len(found) > 1:
        _log.warning("%s: there are both %s and %s.gz; %s is read", folder, name, name, name)
    return found[0]
