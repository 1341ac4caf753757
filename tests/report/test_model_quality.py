import io

import numpy as np
import pytest
from PIL import Image

from digit_search.report.model_quality import mistakes, model_quality, png, sample_digits


def test_a_digit_becomes_a_png_of_its_pixels_inverted():
    pixels = np.arange(784, dtype=np.uint16).astype(np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), 255 - pixels.reshape(28, 28))


def test_a_mistake_has_its_row_its_prediction_and_the_probability_of_its_label(make_predictions):
    (mistake,) = mistakes(make_predictions([6, 4], [6, 9], [0.9, 0.73]))
    assert (mistake["row"], mistake["label"], mistake["predicted"]) == (1, 4, 9)
    assert mistake["confidence"] == pytest.approx(0.73)
    assert mistake["label_probability"] == pytest.approx(0.03)


def test_the_most_confident_mistakes_come_first(make_predictions, monkeypatch):
    monkeypatch.setattr("digit_search.report.model_quality.NUM_MISTAKES", 3)
    shown = mistakes(make_predictions([1] * 6, [2, 1, 3, 4, 5, 6], [0.5, 0.99, 0.8, 0.6, 0.8, 0.4]))
    assert [digit["row"] for digit in shown] == [2, 4, 3]


def test_the_samples_are_one_digit_of_each_label(make_predictions):
    assert [digit["row"] for digit in sample_digits(make_predictions([6, 4, 6], [6, 4, 6], [0.9] * 3))] == [1, 0]


def test_the_quality_counts_the_predictions_of_each_class(make_predictions):
    quality = model_quality(make_predictions([3, 3, 5], [3, 5, 5], [0.9] * 3))
    assert (quality["num_digits"], quality["num_wrong"]) == (3, 1)
    three = quality["classes"][3]
    assert three == {"label": 3, "counts": [0, 0, 0, 1, 0, 1, 0, 0, 0, 0], "precision": 1.0, "recall": 0.5}


def test_without_predictions_there_is_no_quality(make_predictions):
    assert model_quality(None) is None
    assert model_quality(make_predictions([], [], [])) is None
