"""A strict parser of HTML, and predictions of a final model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from digit_search.report.predictions import Predictions

VOID = {"meta", "img", "input", "br", "col", "wbr"}


@dataclass
class Page(HTMLParser):
    """The content of an HTML page; `feed` fails on the first element that is not closed where it should be."""

    text: str = ""
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open_tags, f"</{tag}> closes nothing"
        assert self.open_tags.pop() == tag, f"</{tag}> closes another element, at {self.getpos()}"

    def handle_data(self, data):
        if self.open_tags and self.open_tags[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def read_page() -> Callable[[Path], Page]:
    def read(path: Path) -> Page:
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        assert page.open_tags == []
        return page

    return read


@pytest.fixture
def make_predictions() -> Callable[..., Predictions]:
    def make(labels: Sequence[int], predicted: Sequence[int], confidences: Sequence[float]) -> Predictions:
        """Digits with these labels and predictions; the other nine digits share the rest of the probability."""
        probabilities = np.zeros((len(labels), 10))
        for row, (digit, confidence) in enumerate(zip(predicted, confidences, strict=True)):
            probabilities[row] = (1 - confidence) / 9
            probabilities[row, digit] = confidence
        pixels = np.zeros((len(labels), 784), dtype=np.uint8)
        return Predictions(np.arange(len(labels)), np.array(labels, dtype=np.uint8), probabilities, pixels)

    return make
