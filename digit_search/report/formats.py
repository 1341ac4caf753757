"""How numbers, times and foreign text are written for people."""

import json
import re
from collections.abc import Mapping
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_BREAKING_SPACES = re.compile(r"[^\S\N{NO-BREAK SPACE}]+")
MISSING = "–"
UNIT_SPACE = "\N{NO-BREAK SPACE}"


def clean_text(text: str) -> str:
    """Replace lone surrogates, control characters except tabs and line ends, and characters that reverse the direction of writing.

    Files in UTF-8, XML and terminals cannot show the first two; with the last, one text can look like another.
    """
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def one_line(text: str, limit: int = 120) -> str:
    """The text on one line, cut to `limit` characters."""
    joined = _BREAKING_SPACES.sub(" ", clean_text(text)).strip()
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """0.975 as `97.50 %`, with a space that does not break."""
    return MISSING if fraction is None else f"{100 * fraction:.{decimals}f}{UNIT_SPACE}%"


def interval(bounds: tuple[float, float] | None, decimals: int = 1) -> str:
    """(0.954, 0.9868) as `95.4–98.7 %`."""
    return MISSING if bounds is None else f"{100 * bounds[0]:.{decimals}f}–{100 * bounds[1]:.{decimals}f}{UNIT_SPACE}%"


def number(value: float | None, digits: int = 3) -> str:
    """A number with this many significant digits; a whole number without decimals."""
    if value is None:
        return MISSING
    if abs(value) < 1e6 and (abs(value) >= 1000 or value == int(value)):
        return f"{value:z.0f}"
    return f"{value:.{digits}g}"


def value_text(value: str | float) -> str:
    """A parameter's value, which is a text or a number."""
    return value if isinstance(value, str) else number(value)


def count(value: int | None) -> str:
    """1234567 as `1,234,567`."""
    return MISSING if value is None else f"{value:,}"


def plural(value: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Seconds as `4.2 s`, `42 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}{UNIT_SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{UNIT_SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{UNIT_SPACE}min {whole % 60:02d}{UNIT_SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{UNIT_SPACE}h {minutes % 60:02d}{UNIT_SPACE}min"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as pairs of a dotted name and a short text."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{one_line(str(key), 60)}"
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name}.")
        else:
            rows.append((name, one_line(value if isinstance(value, str) else json.dumps(value), 200)))
    return rows


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit that makes a time span readable: its seconds and its name."""
    if seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")
