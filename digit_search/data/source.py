"""Where the digits come from: a folder of the user's, the usual folder, or the sample in this package."""

import logging
from dataclasses import dataclass
from pathlib import Path

from digit_search.errors import DataError

USUAL_FOLDER = Path("data/digit-recognizer")
SAMPLE_FOLDER = Path(__file__).parent / "sample"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DigitSource:
    """The files of one set of digits. They are there, but not yet read."""

    folder: Path
    train: Path
    test: Path
    answers: Path | None
    """The labels of the test digits, where they lie beside them."""
    embedded: bool
    """True for the small sample in this package."""


def _find_csv(folder: Path, name: str) -> Path | None:
    """The file of that name, or the same with .gz; the former if there are both."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.exists() and packed.exists():
        _log.warning("%s: there are both %s and %s.gz; %s is read", folder, name, name, name)
    return next((path for path in (plain, packed) if path.exists()), None)


def _choose_folder(dir: str) -> Path:
    if dir == "sample":
        return SAMPLE_FOLDER
    if dir == "auto":
        return USUAL_FOLDER if any((USUAL_FOLDER / name).exists() for name in ("train.csv", "train.csv.gz")) else SAMPLE_FOLDER
    return Path(dir).expanduser()


def find_digits(dir: str) -> DigitSource:
    """Choose the folder and find its files.

    Args:
        dir: a folder; `sample` for the embedded digits; `auto` for `data/digit-recognizer` where it holds a train.csv, else the sample.

    Raises:
        DataError: if there is no such folder, or train.csv or test.csv is missing.
    """
    folder = _choose_folder(dir)
    try:
        if not folder.is_dir():
            found = "a file" if folder.exists() else "nothing"
            raise DataError(f"{folder}: expected a folder with train.csv and test.csv, found {found}; --data wants such a folder")
        train, test = _find_csv(folder, "train.csv"), _find_csv(folder, "test.csv")
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; mend its permissions or choose another --data") from error
    for name, path in (("train.csv", train), ("test.csv", test)):
        if path is None:
            raise DataError(
                f"{folder}: expected {name} or {name}.gz, found neither; --data wants a folder that holds train.csv and test.csv"
            )
    answers = folder / "test_labels.csv"
    return DigitSource(folder, train, test, answers if answers.exists() else None, embedded=folder == SAMPLE_FOLDER)
