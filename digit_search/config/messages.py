"""What pydantic finds wrong with settings, one line a setting, each with its dotted key."""

import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_FOUND_LETTERS = 80
_UNION_MEMBERS = {"IntRange", "FloatRange", "Choice", "bool", "int", "float", "str"}
_UNION_MEMBERS |= {"literal['auto']", "constrained-int", "constrained-float"}
"""pydantic (2.x) adds the member of a union to the location of a problem; the file has no such key."""


def problem_lines(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """The problems that were found when a tree was validated against `model`, in the order of the settings."""
    # A union reports a problem for each of its members, one after the other: they become one line.
    for keys, group in groupby(error.errors(include_url=False), _keys):
        for text in dict.fromkeys(_texts(keys, list(group), model)):
            yield f"{'.'.join(keys)}: {text}".removeprefix(": ")


def _keys(problem: ErrorDetails) -> list[str]:
    return [str(part) for part in problem["loc"] if str(part) not in _UNION_MEMBERS]


def _texts(keys: Sequence[str], problems: Sequence[ErrorDetails], model: type[BaseModel]) -> list[str]:
    first = problems[0]
    if first["type"] == "extra_forbidden":
        return [_unknown(keys, model)]
    if first["type"] == "missing":
        return ["is missing"]
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ").split("\n")
    requirements = " or ".join(dict.fromkeys(_requirement(problem["msg"]) for problem in problems))
    must_be = "must be " if first["msg"].startswith("Input should be ") else ""
    return [f"{must_be}{requirements}, found {_shown(first['input'])}"]


def _requirement(message: str) -> str:
    """The end of a sentence that pydantic begins with "Input should be", or another sentence, in TOML's words."""
    message = message.removeprefix("Input should be ").partition(" after validation")[0]
    return re.sub("a valid dictionary.*", "a table", message)


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
