"""A matplotlib figure as SVG that stands inside of the page: it takes the page's colours, light or dark, and its font."""

import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from digit_search.report.html import Html, element, escape
from digit_search.report.plots.style import RC, THEME

HALF = (4.6, 3.3)
"""Inches of a picture that shares its row with another; one inch is 72 units of the SVG."""
WIDE = (10.0, 4.4)

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in THEME.items()}
_COORDINATES = re.compile(r'(?<= )(?:d|x|y|width|height|transform)="[^"]*"')
_PLACES = re.compile(r"<use [^>]*>")
_NUMBER = re.compile(r"-?\d+\.\d{2,}")


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure with what it is called and what it shows in words."""

    title: str
    caption: str
    svg: Html
    is_wide: bool


def draw(name: str, title: str, *, alt: str, caption: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> Picture:
    """Make a figure with one pair of axes, let `paint` fill it, and return it as SVG.

    Args:
        name: lower-case letters and hyphens, unique on the page: it keeps the ids of several pictures apart.
        alt: what the picture shows, for those who do not see it.
        size: width and height in inches, `HALF` or about `WIDE`.
    """
    # Figure instead of pyplot: pyplot keeps every figure of the process, and a report may be made inside of a search.
    with matplotlib.rc_context(RC | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Picture(title, caption, _for_page(buffer.getvalue(), name, alt), size[0] > HALF[0])


def _for_page(svg: str, name: str, alt: str) -> Html:
    """Strip what only a file of its own needs, shorten numbers, and replace colours by the page's variables."""
    body = svg[svg.index(">", svg.index("<svg ")) + 1 : svg.rindex("</svg>")]
    box = re.search(r'viewBox="([\d. ]+)"', svg)
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r' transform="rotate\(-0 [^)]*\)"| target="_blank"', "", body)
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    body = re.sub(r"(?<=: )#[0-9a-f]{6}\b|(?<=fill=\")#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match[0], match[0]), body)
    body = _PLACES.sub(lambda match: _NUMBER.sub(_tenths, match[0]), _COORDINATES.sub(_shortened, body))
    body = re.sub(r'(\bid="|url\(#|href="#(?=m[0-9a-f]{10}"))', rf"\g<1>{name}-", body)
    # Links serve the mouse only: the table of trials leads a keyboard to the same places.
    body = re.sub(r'<a xlink:href="#trial-(\d+)">', r'<a href="#trial-\1" tabindex="-1"><title>trial \1</title>', body)
    body = _share_styles(re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href"), name)
    return element("svg", Html(f"<title>{escape(alt)}</title>{body}"), viewBox=box[1] if box else "", role="img")


def _rounded(match: re.Match[str]) -> str:
    """A hundredth of a point is finer than any screen."""
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _tenths(match: re.Match[str]) -> str:
    """Enough for the place of a mark, of which there are thousands; not for its shape."""
    return f"{float(match[0]):.1f}".removesuffix(".0")


def _shortened(match: re.Match[str]) -> str:
    return re.sub(r"\s*([MLCQZz])\s*", r"\1", _NUMBER.sub(_rounded, match[0]))


def _share_styles(body: str, name: str) -> str:
    """Turn styles that many elements repeat into classes: with hundreds of trials they are most of the picture."""
    styles = Counter(re.findall(r' style="[^"]*"', body))
    shared = {style: f"{name}-{index}" for index, (style, uses) in enumerate(styles.items()) if uses > 2}
    rules = "".join(f".{label}{{{style[8:-1]}}}" for style, label in shared.items())
    body = re.sub(r' style="[^"]*"', lambda match: f' class="{shared[match[0]]}"' if match[0] in shared else match[0], body)
    return f"<style>{rules}</style>{body}" if rules else body


def trial_link(trial: int) -> str:
    """The address of a trial on the page, for an artist's `url`."""
    return f"#trial-{trial}"
