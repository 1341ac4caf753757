"""The templates of the report: how they are found, and how foreign text is escaped in them."""

import base64
import hashlib
import html
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from digit_search.report.formats import clean_text, count, duration, interval, number, one_line, percent, plural, value_text
from digit_search.report.plots.style import THEME

TEMPLATES = Path(__file__).with_name("templates")
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~$])")


def render_html(template: str, **view: Any) -> str:
    """Fill a page's template; `page.css` and `page.js` are inlined, so that the page is one file that needs no network."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    view |= {
        "theme": THEME,
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment("html").get_template(template).render(view)


def render_markdown(template: str, **view: Any) -> str:
    """Fill a template of Markdown."""
    return environment("markdown").get_template(template).render(view)


def markdown_text(text: str) -> str:
    """Foreign text as Markdown that shows it as it is, on one line."""
    # Entities for HTML, because not every Markdown reader takes a backslash before "<".
    return _MARKDOWN_SPECIAL.sub(r"\\\1", html.escape(one_line(text, 1000), quote=False))


@cache
def environment(language: Literal["html", "markdown"]) -> Environment:
    """Templates that clean and escape the text of their `{{ expressions }}`, unless it is Markup."""
    clean = clean_text if language == "html" else markdown_text
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=language == "html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    filters = (percent, interval, number, count, duration, plural, one_line, value_text, sort_key)
    templates.filters |= {each.__name__: each for each in filters}
    return templates


def sort_key(value: float | None) -> str:
    """A number as a cell's `data-value`, by which the page's script sorts; nothing for None and NaN, which come last."""
    return "" if value is None or value != value else f"{value:.6g}"
