"""A matplotlib figure as SVG inside the page: it takes the page's font, and its colours in the light and in the dark theme."""

import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, fromstring, tostring

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from digit_search.report.formats import clean_text
from digit_search.report.plots.style import RC, THEME

HALF = (4.6, 3.3)
"""Inches of a picture that shares its row with another; one inch is 72 units of the SVG."""
WIDE = (10.0, 4.4)

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in THEME.items()}
_LIGHT_COLOR = re.compile("|".join(_VARIABLES))
# A hundredth of a point is finer than any screen. The page has the font.
_NOT_NEEDED = re.compile(r"(?<=\.\d\d)\d+|font-family: [^;]*; ")


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure with its title and caption."""

    title: str
    caption: str
    svg: Markup
    is_wide: bool


def draw(name: str, title: str, *, alt: str, paint: Callable[[Axes], None], caption: str = "", size: tuple[float, float] = HALF) -> Picture:
    """Make a figure with one pair of axes, let `paint` fill it, and return it as SVG.

    Args:
        name: lower-case letters and hyphens, unique on the page; it makes the picture's ids and classes unique.
        alt: what the picture shows, for readers who cannot see it.
        size: width and height in inches, `HALF` or about `WIDE`.
    """
    # Figure instead of pyplot: pyplot keeps every figure for the life of the process, and a search writes reports while it runs.
    with matplotlib.rc_context(RC | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    return Picture(title, caption, _for_page(buffer.getvalue(), name, alt), size[0] > HALF[0])


def trial_link(trial: int) -> str:
    """The address of a trial on the page, for an artist's `url`."""
    return f"#trial-{trial}"


def _for_page(svg: str, name: str, alt: str) -> Markup:
    """Turn a whole SVG file into an element of the page."""
    file = fromstring(clean_text(svg))
    for element in list(file.iter()):
        _adapt(element)
    root = Element("svg", viewBox=file.attrib["viewBox"], role="img")
    # The first child is a style for all elements, which page.css has.
    root.extend([_titled(clean_text(alt)), *list(file)[1:]])
    _share_styles(root, name)
    return Markup(tostring(root, encoding="unicode"))


def _titled(text: str) -> Element:
    title = Element("title")
    title.text = text
    return title


def _adapt(element: Element) -> None:
    """Give one element the page's colours and font, and keep links within the page."""
    element.tag, element.tail = element.tag.removeprefix(_SVG), None
    if element.tag != "text":
        element.text = None
    element.attrib = {key.removeprefix(_XLINK): _for_attribute(value) for key, value in element.items()}
    if element.tag == "g":
        # The ids of groups are the same in all pictures, and nothing refers to them. Other ids are hashes with the picture's name.
        element.attrib.pop("id", None)
    if element.tag == "a":
        # The links are for the mouse. A keyboard reaches the same places from the table of trials.
        element.attrib = {"href": element.attrib["href"], "tabindex": "-1"}
        element.insert(0, _titled(element.attrib["href"].removeprefix("#").replace("-", " ")))


def _for_attribute(value: str) -> str:
    return _LIGHT_COLOR.sub(lambda match: _VARIABLES[match[0]], _NOT_NEEDED.sub("", value))


def _share_styles(root: Element, name: str) -> None:
    """Turn styles that many elements repeat into classes."""
    styled = [element for element in root.iter() if "style" in element.attrib]
    uses = Counter(element.attrib["style"] for element in styled)
    classes = {style: f"{name}-{index}" for index, (style, num_uses) in enumerate(uses.items()) if num_uses > 2}
    for element in styled:
        if element.attrib["style"] in classes:
            element.set("class", classes[element.attrib.pop("style")])
    rules = Element("style")
    rules.text = "".join(f".{label}{{{style}}}" for style, label in classes.items())
    root.insert(1, rules)
