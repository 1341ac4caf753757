"""The final model's predictions on the validation digits: its errors by class, and how well its confidence is calibrated."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from digit_search.errors import DataError
from digit_search.files.bounded_io import max_file_bytes, read_bounded

NUM_CLASSES = 10
NUM_PIXELS = 784
COLUMNS = {
    "row": pa.int32(),
    "label": pa.uint8(),
    "probabilities": pa.list_(pa.float32(), NUM_CLASSES),
    "pixels": pa.list_(pa.uint8(), NUM_PIXELS),
}
NUM_BINS = 15
"""As in Guo et al. (2017), On Calibration of Modern Neural Networks, for the expected calibration error."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """`n` validation digits and what the final model predicted."""

    rows: np.ndarray
    """int32[n]: rows of train.csv, from 0."""
    labels: np.ndarray
    """uint8[n]."""
    probabilities: np.ndarray
    """float64[n, 10]."""
    pixels: np.ndarray
    """uint8[n, 784]."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """int64[n]: the most probable digit."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """float64[n]: the probability of the predicted digit."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """bool[n]."""
        return self.predicted == self.labels


def load_predictions(path: Path) -> Predictions:
    """Read `validation.arrow`.

    Raises:
        DataError: if it is not an Arrow file, or its columns are not row, label, probabilities[10] and pixels[784].
    """
    try:
        return _parse(read_bounded(path, max_file_bytes()))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, struct.error) as error:
        raise DataError(f"{path.name}: expected row, label, probabilities[10] and pixels[784] as an Arrow file, found: {error}") from error


def _parse(content: bytes) -> Predictions:
    table = _read_plain_arrow(content)
    _check_columns(table)
    labels = table["label"].to_numpy()
    probabilities = _matrix(table["probabilities"], NUM_CLASSES).astype(np.float64)
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability that is not a number")
    if len(labels) and labels.max() >= NUM_CLASSES:
        raise ValueError(f"the label {labels.max()}")
    return Predictions(table["row"].to_numpy(), labels, probabilities, _matrix(table["pixels"], NUM_PIXELS))


def _read_plain_arrow(content: bytes) -> pa.Table:
    """Read an Arrow file message by message, and refuse compressed ones: 1 MB could unpack to many GB, and pyarrow 26 has no limit."""
    messages = list(pa.ipc.MessageReader.open_stream(pa.BufferReader(content[8:])))
    if content[:6] != b"ARROW1" or not messages:
        raise ValueError("not an Arrow file")
    if any(_is_compressed(message.metadata.to_pybytes()) for message in messages[1:]):
        raise ValueError("a compressed file, which no run writes")
    schema = pa.ipc.read_schema(messages[0])
    return pa.Table.from_batches([pa.ipc.read_record_batch(message, schema) for message in messages[1:]], schema)


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message holds a RecordBatch (its field 2 in Arrow's format/Message.fbs) with a BodyCompression (field 3 of that).

    pyarrow has no function that says so. `MessageReader` has already checked that the offsets are inside of `metadata`.
    """
    (message,) = struct.unpack_from("<I", metadata, 0)
    header = _flat_field(metadata, message, 2)
    return not header or bool(_flat_field(metadata, header + struct.unpack_from("<I", metadata, header)[0], 3))


def _flat_field(data: bytes, table: int, number: int) -> int:
    """The position of a field in a flatbuffer's table, 0 where the table does not have it."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + slot)[0] if slot < struct.unpack_from("<H", data, vtable)[0] else 0
    return table + offset if offset else 0


def _check_columns(table: pa.Table) -> None:
    table.validate(full=True)
    for name, kind in COLUMNS.items():
        column = table[name]
        if column.type != kind or column.null_count:
            raise ValueError(f"{name} as {column.type} with {column.null_count} missing values")


def _matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A column of lists of `width` numbers as an array of shape [rows, width]."""
    values = column.combine_chunks().flatten()
    if values.null_count:
        raise ValueError(f"{values.null_count} missing values in lists")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), width)


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """int64[10, 10]: how many digits of the row's label were classified as the column's digit."""
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    np.add.at(matrix, (predictions.labels, predictions.predicted), 1)
    return matrix


def precision_recall(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two float64[10]: the share of correct ones among the digits classified as a class, and among the digits of that class.

    NaN for a class without any.
    """
    correct = np.diag(matrix).astype(float)
    with np.errstate(invalid="ignore"):
        return correct / matrix.sum(axis=0), correct / matrix.sum(axis=1)


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """The digits whose confidence is in (low, high]."""

    low: float
    high: float
    num_digits: int
    confidence: float
    """Mean over the digits; `accuracy` too."""
    accuracy: float


def confidence_bins(predictions: Predictions) -> list[ConfidenceBin]:
    """The digits by confidence, in `NUM_BINS` bins of equal width; empty bins are left out."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    index = np.clip(np.searchsorted(edges, predictions.confidence, side="left") - 1, 0, NUM_BINS - 1)
    bins = []
    for number in np.unique(index):
        inside = index == number
        confidence, accuracy = predictions.confidence[inside].mean(), predictions.correct[inside].mean()
        bins.append(ConfidenceBin(edges[number], edges[number + 1], int(inside.sum()), float(confidence), float(accuracy)))
    return bins


def calibration_error(bins: list[ConfidenceBin]) -> float:
    """The expected calibration error (Naeini et al. 2015), in [0, 1]: the mean over digits of |accuracy - confidence| of their bin.

    `bins` has at least one.
    """
    gaps = [abs(entry.accuracy - entry.confidence) for entry in bins]
    return float(np.average(gaps, weights=[entry.num_digits for entry in bins]))
