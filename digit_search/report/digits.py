"""Validation digits as small pictures, with what the final model said of them."""

import base64
import struct
import zlib

import numpy as np

from digit_search.report.formats import percent
from digit_search.report.html import Html, element, join
from digit_search.report.predictions import Predictions, most_confidently_wrong, one_of_each

SIDE = 28
NUM_WRONG = 18


def png(pixels: np.ndarray) -> bytes:
    """A digit, uint8[784], as a grey PNG: dark strokes on white, as on paper."""
    rows = (255 - pixels.reshape(SIDE, SIDE)).astype(np.uint8)
    scanlines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(scanlines, 9)), (b"IEND", b""))
    packed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _figure(predictions: Predictions, index: int, *, with_label: bool) -> Html:
    """One digit with its caption. `with_label` adds how probable the model held the right answer."""
    label, said = int(predictions.labels[index]), int(predictions.predicted[index])
    confidence = percent(float(predictions.confidence[index]), 1)
    source = "data:image/png;base64," + base64.b64encode(png(predictions.pixels[index])).decode()
    alt = f"Handwritten {label}, row {int(predictions.rows[index])} of train.csv, read as {said}"
    told = [element("strong", f"{label} read as {said}" if said != label else f"{label}, rightly"), element("span", f"{confidence} sure")]
    if with_label:
        told.append(element("span", f"{label}: {percent(float(predictions.probabilities[index, label]), 1)}"))
    mark = "right" if said == label else "wrong"
    image = element("img", src=source, alt=alt, width=SIDE * 2, height=SIDE * 2)
    return element("figure", image, element("figcaption", *told), class_=f"digit {mark}")


def sample_digits(predictions: Predictions) -> Html:
    """The first digit of each label that occurs."""
    return element("div", join(*(_figure(predictions, index, with_label=False) for index in one_of_each(predictions))), class_="digits")


def wrong_digits(predictions: Predictions) -> Html:
    """The misread digits that the model was surest of, the surest first; empty where it misread none."""
    figures = [_figure(predictions, index, with_label=True) for index in most_confidently_wrong(predictions, NUM_WRONG)]
    return element("div", *figures, class_="digits") if figures else Html("")
