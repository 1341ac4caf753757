"""Small CSV files of digits, right or with one thing wrong."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

PIXELS = [f"pixel{index}" for index in range(784)]


def digits_csv(
    pixels: np.ndarray,
    labels: np.ndarray | None,
    *,
    change: Mapping[tuple[int, str], str] | None = None,
    order: Sequence[str] | None = None,
    end: str = "\n",
    quote: str = "",
) -> bytes:
    """The CSV of the pixels, uint8 [rows, 784], and labels; `change` puts text into cells given by row (from 1) and column."""
    names = [*([] if labels is None else ["label"]), *PIXELS]
    rows = [
        dict(zip(names, map(str, [*([] if labels is None else [labels[index]]), *pixels[index]]), strict=True))
        for index in range(len(pixels))
    ]
    for (row, name), text in (change or {}).items():
        rows[row - 1][name] = text
    order = order or names
    lines = [order, *([row[name] for name in order] for row in rows)]
    return "".join(",".join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines).encode()


@pytest.fixture
def pixels() -> np.ndarray:
    """uint8 [6, 784] with every value from 0 to 255 in it."""
    return np.random.default_rng(0).integers(0, 256, (6, 784)).astype(np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.array([3, 0, 9, 3, 0, 9], np.uint8)


@pytest.fixture
def write_digits(tmp_path, pixels, labels) -> Callable[..., Path]:
    """Write train.csv, or another name, with the first rows of `pixels` and `labels` and what else `digits_csv` takes."""

    def write(name: str = "train.csv", *, rows: int = 6, labelled: bool = True, **options) -> Path:
        content = digits_csv(pixels[:rows], labels[:rows] if labelled else None, **options)
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write
