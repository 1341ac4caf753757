"""What all pages share: one file with its style and its script inside, which neither needs nor is allowed a network."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from digit_search.report.html import Html, element
from digit_search.report.plots.style import THEME


def html_page(title: str, *body: str, more_css: str = "") -> str:
    """A whole page, the same for the same content."""
    return "<!doctype html>\n" + element("html", _head(title, more_css), element("body", *body), lang="en") + "\n"


@cache
def _asset(name: str) -> str:
    """A file that lies beside this module."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def theme_css() -> str:
    """The colours as CSS variables, for light and dark; what is printed is light."""
    light, dark = (";".join(f"--{name}:{pair[index]}" for name, pair in THEME.items()) for index in (0, 1))
    return f":root{{color-scheme:light dark;{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _head(title: str, more_css: str) -> Html:
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Even if foreign text slipped through the escaping, the browser would neither run it nor let it call anybody.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(theme_css() + _asset("page.css") + more_css)),
        element("script", Html(script), type="module"),
    )
