"""Small real data for the tests that need a folder of CSVs."""

import csv
import gzip
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "digit_search" / "data" / "sample"


def _first_rows(source: Path, target: Path, num_rows: int) -> None:
    with gzip.open(source, "rt") as file:
        lines = [next(file) for _ in range(num_rows + 1)]
    target.write_text("".join(lines))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A folder with 320 labelled digits, 40 to predict and their answers."""
    folder = tmp_path_factory.mktemp("tiny")
    _first_rows(SAMPLE / "train.csv.gz", folder / "train.csv", 320)
    _first_rows(SAMPLE / "test.csv.gz", folder / "test.csv", 40)
    rows = list(csv.reader((SAMPLE / "test_labels.csv").read_text().splitlines()))[:41]
    (folder / "test_labels.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    return folder


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--faults", type=int, default=0, metavar="N", help="kill runs at random N times and compare them with an untouched one"
    )
