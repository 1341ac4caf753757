"""HTML that is escaped by construction: whatever is a plain `str` is text, only `Html` is markup."""

import html

from digit_search.report.formats import clean_text

_VOID = {"meta", "img", "input", "col", "br", "wbr"}


class Html(str):
    """Markup that needs no more escaping."""

    __slots__ = ()

    def __html__(self) -> str:
        """What Jinja2 asks for before it escapes."""
        return self


def escape(text: str) -> Html:
    """Foreign text as markup, in content or inside of a quoted attribute."""
    return Html(html.escape(clean_text(text)))


def join(*parts: str) -> Html:
    """Put parts one after the other; those that are plain text are escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def element(tag: str, *children: str, **attributes: str | int | float | bool) -> Html:
    """One element. A trailing underscore of an attribute's name falls away, other underscores become hyphens; True is an empty attribute,
    False none at all."""
    told = "".join(_attribute(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not False)
    return Html(f"<{tag}{told}>" if tag in _VOID else f"<{tag}{told}>{join(*children)}</{tag}>")


def _attribute(name: str, value: str | int | float | bool) -> str:
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
