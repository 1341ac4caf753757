import numpy as np
import pyarrow as pa
import pytest

from digit_search.errors import DataError
from digit_search.report.predictions import (
    calibration_error,
    confidence_bins,
    confusion_matrix,
    load_predictions,
    precision_recall,
)


def test_the_confusion_matrix_counts_labels_by_rows(make_predictions):
    matrix = confusion_matrix(make_predictions([3, 3, 5], [3, 5, 5], [0.9] * 3))
    assert (matrix[3, 3], matrix[3, 5], matrix[5, 5], matrix.sum()) == (1, 1, 1, 3)


def test_precision_and_recall_are_nan_only_where_they_are_undefined(make_predictions):
    precision, recall = precision_recall(confusion_matrix(make_predictions([3, 3, 5], [3, 5, 5], [0.9] * 3)))
    assert (precision[3], recall[3], precision[5], recall[5]) == (1.0, 0.5, 0.5, 1.0)
    assert np.isnan(precision[0])
    assert np.isnan(recall[0])


def test_the_calibration_error_weights_bins_by_their_digits(make_predictions):
    # Three digits with confidence 0.95, two of them correct; one with 0.55, wrong: (3 * |2/3 - 0.95| + 1 * 0.55) / 4.
    bins = confidence_bins(make_predictions([1, 1, 1, 1], [1, 1, 2, 2], [0.95, 0.95, 0.95, 0.55]))
    assert [entry.num_digits for entry in bins] == [1, 3]
    assert calibration_error(bins) == pytest.approx((3 * (0.95 - 2 / 3) + 0.55) / 4)


def test_full_confidence_falls_in_the_last_bin(make_predictions):
    (only,) = confidence_bins(make_predictions([1], [1], [1.0]))
    assert (only.high, only.confidence, only.accuracy) == (1.0, 1.0, 1.0)


def arrow_file(path, **columns):
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def lists(values, width, kind):
    return pa.FixedSizeListArray.from_arrays(pa.array(values, type=kind), width)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"label": pa.array([10], type=pa.uint8())}, "the label 10"),
        ({"probabilities": lists([float("nan")] * 10, 10, pa.float32())}, "not a number"),
        ({"probabilities": lists([0.1] * 9, 9, pa.float32())}, r"probabilities as .*\[9\]"),
        ({"pixels": None}, "pixels"),
        ({"pixels": lists([None] + [0] * 783, 784, pa.uint8())}, "1 missing values in lists"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, found):
    columns = {
        "row": pa.array([0], type=pa.int32()),
        "label": pa.array([1], type=pa.uint8()),
        "probabilities": lists([0.1] * 10, 10, pa.float32()),
        "pixels": lists([0] * 784, 784, pa.uint8()),
    } | change
    path = arrow_file(tmp_path / "validation.arrow", **{name: column for name, column in columns.items() if column is not None})
    with pytest.raises(DataError, match=f"validation.arrow: expected row, label.*{found}"):
        load_predictions(path)


def test_a_file_that_is_not_arrow_is_refused(tmp_path):
    (tmp_path / "validation.arrow").write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"validation\.arrow: expected row"):
        load_predictions(tmp_path / "validation.arrow")
