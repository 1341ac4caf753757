"""The space that a search explores: ranges and choices of parameters, each checked against what the parameter may be at all."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from digit_search.records import PARAM_NAMES

ParamValue = bool | int | float | str


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden, no silent conversions beyond int to float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class IntRange(Settings):
    """An integer from low to high, both included."""

    low: int
    high: int
    log: bool = False
    when: dict[str, ParamValue] = Field(default_factory=dict)
    """Searched only in trials whose other parameters have these values; elsewhere its fixed setting holds."""


class FloatRange(Settings):
    """A real number from low to high."""

    low: float
    high: float
    log: bool = False
    when: dict[str, ParamValue] = Field(default_factory=dict)


class Choice(Settings):
    """One of a few values, taken as equally far from each other."""

    choices: Annotated[list[ParamValue], Field(min_length=1)]
    when: dict[str, ParamValue] = Field(default_factory=dict)


Dimension = IntRange | FloatRange | Choice
INT_PARAMS = frozenset({"step_size", "batch_size", "accumulation_steps"})
PARAM_BOUNDS: dict[str, tuple[float, float]] = {
    "lr": (1e-12, 100.0),
    "gamma": (1e-6, 1.0),
    "step_size": (1, 10**6),
    "batch_size": (2, 10**6),
    "rotation_degrees": (0.0, 180.0),
    "shift_pixels": (0.0, 14.0),
    "weight_decay": (0.0, 10.0),
    "accumulation_steps": (1, 10**4),
    "label_smoothing": (0.0, 0.999),
}
"""What a parameter may be at all. Batch norm cannot train on a batch of one."""
STEMS = ("imagenet", "small")


def default_space() -> dict[str, Dimension | ParamValue]:
    """The four parameters that a search explores unless told otherwise."""
    return {
        "lr": FloatRange(low=1e-4, high=3e-2, log=True),
        "gamma": FloatRange(low=0.05, high=0.9),
        "step_size": IntRange(low=1, high=7),
        "batch_size": Choice(choices=[32, 64, 128, 256]),
    }


def check_value(name: str, value: object, where: str) -> None:
    if name == "stem":
        if value not in STEMS:
            raise ValueError(f"{where}: expected one of {', '.join(STEMS)}, found {value!r:.40}")
        return
    wanted = int if name in INT_PARAMS else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"{where}: expected {'an integer' if wanted is int else 'a number'}, found {value!r:.40}")
    low, high = PARAM_BOUNDS[name]
    if not low <= value <= high:
        raise ValueError(f"{where}: expected a value from {low:g} to {high:g}, found {value!r:.40}")


def dimension_problems(name: str, dimension: object, space: Mapping[str, object]) -> list[str]:
    """What is wrong with one entry of the space, in words."""
    problems: list[str] = []

    def check(value: object, where: str) -> None:
        try:
            check_value(name, value, where)
        except ValueError as error:
            problems.append(str(error))

    if name not in PARAM_NAMES:
        return [f"{name}: no such parameter; there are {', '.join(PARAM_NAMES)}"]
    if isinstance(dimension, Choice):
        for value in dimension.choices:
            check(value, f"{name}.choices")
    elif isinstance(dimension, IntRange | FloatRange):
        if name == "stem":
            return [f"{name}: expected choices, found a range"]
        check(dimension.low, f"{name}.low")
        check(dimension.high, f"{name}.high")
        # An end that is out of bounds may be too large for a float, and so for these words.
        in_bounds = not problems
        if in_bounds and dimension.low > dimension.high:
            problems.append(f"{name}: low {dimension.low:g} is above high {dimension.high:g}")
        if in_bounds and dimension.log and dimension.low <= 0:
            problems.append(f"{name}: a logarithmic range starts above 0, found low {dimension.low:g}")
    else:
        check(dimension, name)
    earlier = list(space)[: list(space).index(name)]
    for other in getattr(dimension, "when", {}):
        if other not in earlier:
            problems.append(f"{name}.when: {other} must stand before it in search.space; {', '.join(earlier) or 'nothing'} does")
    return problems


def dimension_model(name: str, table: Mapping[str, object]) -> type[Dimension]:
    """The one model that a table's keys and its parameter's type ask for, so that errors name one cause."""
    if "choices" in table:
        return Choice
    return IntRange if name in INT_PARAMS else FloatRange
