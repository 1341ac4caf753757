"""What pydantic finds wrong with settings, in the words of somebody who writes TOML: a line a setting, each with its dotted key."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "list_type": "a list, e.g. [1, 2]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
    "string_too_short": "a text that is not empty",
    "too_short": "a list that is not empty",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number up to {le:g}",
    "literal_error": "{expected}",
}
"""By pydantic's (2.x) error type; braces take from the error's context."""
_UNION_LABELS = {
    "IntRange",
    "FloatRange",
    "Choice",
    "bool",
    "int",
    "float",
    "str",
    "literal['auto']",
    "constrained-int",
    "constrained-float",
}
"""pydantic names the member of a union in the location; nobody typed that."""
MAX_FOUND_LETTERS = 80


def problem_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a problem, in the order of the settings.

    Args:
        error: what validating a tree against `model` raised.
        model: whose settings are the known ones, for those that are not.
    """
    lines: list[str] = []
    expected: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        keys = [str(part) for part in problem["loc"] if str(part) not in _UNION_LABELS]
        key = ".".join(keys)
        if problem["type"] in _EXPECTED:
            # All members of a union tell what they expected: one line takes them together.
            wanted = _EXPECTED[problem["type"]].format(**problem.get("ctx", {}))
            expected.setdefault(key, [])
            expected[key] += [wanted] if wanted not in expected[key] else []
            found[key] = _shown(problem["input"])
            lines.append(key)
        else:
            lines += [f"{key}: {text}".removeprefix(": ") for text in _told(problem, keys, model)]
    return [
        f"{line}: expected {' or '.join(expected[line])}, found {found[line]}" if line in expected else line
        for line in dict.fromkeys(lines)
    ]


def _told(problem: Mapping[str, Any], keys: Sequence[str], model: type[BaseModel]) -> list[str]:
    if problem["type"] == "extra_forbidden":
        return [_unknown(keys, model)]
    if problem["type"] == "missing":
        return ["is missing"]
    return problem["msg"].removeprefix("Value error, ").split("\n")


def _unknown(keys: Sequence[str], model: type[BaseModel]) -> str:
    """That there is no such setting, and which there are."""
    for key in keys[:-1]:
        field = model.model_fields.get(key)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return "no such setting"
        model = field.annotation
    near = difflib.get_close_matches(keys[-1][:MAX_FOUND_LETTERS], model.model_fields, n=3, cutoff=0.5)
    return f"no such setting; did you mean {' or '.join(near)}?" if near else f"no such setting; there are {', '.join(model.model_fields)}"


def _shown(value: object) -> str:
    text = f"a table of {len(value)} settings" if isinstance(value, dict) else repr(value)
    return text if len(text) <= MAX_FOUND_LETTERS else f"{text[: MAX_FOUND_LETTERS - 1]}…"
