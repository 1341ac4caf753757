"""How good the final model is, and some of its digits, as report.html and report.md show them."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from digit_search.report.predictions import Predictions, calibration_error, confidence_bins, confusion_matrix, precision_recall

SIDE = 28
NUM_MISTAKES = 18


def model_quality(predictions: Predictions | None) -> dict[str, Any] | None:
    """How the validation digits were classified, in all and by label; None where there are no predictions.

    `counts`: how many digits of the label were classified as each digit. `precision` and `recall` are NaN where they are undefined.
    """
    if predictions is None or not len(predictions):
        return None
    matrix = confusion_matrix(predictions)
    columns = zip(matrix.tolist(), *(shares.tolist() for shares in precision_recall(matrix)), strict=True)
    return {
        "num_digits": len(predictions),
        "num_wrong": int((~predictions.correct).sum()),
        "calibration_error": calibration_error(confidence_bins(predictions)),
        "classes": [
            {"label": label, "counts": counts, "precision": precision, "recall": recall}
            for label, (counts, precision, recall) in enumerate(columns)
        ],
    }


def sample_digits(predictions: Predictions) -> list[dict[str, Any]]:
    """The first digit of each label that occurs."""
    _, first = np.unique(predictions.labels, return_index=True)
    return [_shown_digit(predictions, index) for index in first]


def mistakes(predictions: Predictions) -> list[dict[str, Any]]:
    """The misclassified digits, the most confident first, ties in the order of the file; at most `NUM_MISTAKES`."""
    wrong = np.flatnonzero(~predictions.correct)
    order = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    return [_shown_digit(predictions, index) for index in order[:NUM_MISTAKES]]


def _shown_digit(predictions: Predictions, index: int) -> dict[str, Any]:
    label = int(predictions.labels[index])
    return {
        "row": int(predictions.rows[index]),
        "label": label,
        "predicted": int(predictions.predicted[index]),
        "confidence": float(predictions.confidence[index]),
        "label_probability": float(predictions.probabilities[index, label]),
        "png": base64.b64encode(png(predictions.pixels[index])).decode(),
    }


def png(pixels: np.ndarray) -> bytes:
    """A digit, uint8[784], as a grey PNG: dark strokes on white."""
    file = io.BytesIO()
    Image.fromarray(255 - pixels.reshape(SIDE, SIDE)).save(file, "PNG", optimize=True)
    return file.getvalue()
