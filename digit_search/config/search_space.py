"""The space that a search explores: ranges and choices of parameters, each checked against the parameter's own limits."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from digit_search.records import PARAM_NAMES

ParamValue = bool | int | float | str


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden, no conversions except int to float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class IntRange(Settings):
    """An integer from low to high, both included."""

    low: int
    high: int
    log: bool = False
    when: dict[str, ParamValue] = Field(default_factory=dict)
    """Searched only in trials whose other parameters have these values; in other trials its fixed setting is used."""


class FloatRange(Settings):
    """A real number from low to high."""

    low: float
    high: float
    log: bool = False
    when: dict[str, ParamValue] = Field(default_factory=dict)


class Choice(Settings):
    """One of a few values, without an order."""

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
"""The smallest and the largest value that a parameter may have. Batch norm cannot train on a batch of one."""
STEMS = ("imagenet", "small")
_NO_SUCH_PARAMETER = f"no such parameter; there are {', '.join(PARAM_NAMES)}"


def default_space() -> dict[str, Dimension | ParamValue]:
    """The four parameters that a search explores by default."""
    return {
        "lr": FloatRange(low=1e-4, high=3e-2, log=True),
        "gamma": FloatRange(low=0.05, high=0.9),
        "step_size": IntRange(low=1, high=7),
        "batch_size": Choice(choices=[32, 64, 128, 256]),
    }


def dimension_model(name: str, table: Mapping[str, object]) -> type[IntRange] | type[FloatRange] | type[Choice]:
    """The model that fits the table's keys and the parameter's type, so that an error names one cause."""
    if "choices" in table:
        return Choice
    return IntRange if name in INT_PARAMS else FloatRange


def value_problem(name: str, value: object) -> str:
    """What is wrong with a value of the parameter `name`; empty if nothing is."""
    if name not in PARAM_NAMES:
        return _NO_SUCH_PARAMETER
    if name == "stem":
        return "" if value in STEMS else f"expected one of {', '.join(STEMS)}, found {value!r:.40}"
    is_int = name in INT_PARAMS
    if isinstance(value, bool) or not isinstance(value, int if is_int else int | float):
        return f"expected {'an integer' if is_int else 'a number'}, found {value!r:.40}"
    low, high = PARAM_BOUNDS[name]
    return "" if low <= value <= high else f"expected a value from {low:g} to {high:g}, found {value!r:.40}"


def _value_problems(name: str, values: Iterable[tuple[str, object]]) -> list[str]:
    """The problems of values given with where they are."""
    return [f"{where}: {problem}" for where, value in values if (problem := value_problem(name, value))]


def space_problems(space: Mapping[str, Dimension | ParamValue]) -> Iterator[str]:
    """What is wrong with the space, a line a problem."""
    earlier: list[str] = []
    for name, dimension in space.items():
        if name not in PARAM_NAMES:
            yield f"{name}: {_NO_SUCH_PARAMETER}"
        elif isinstance(dimension, Dimension):
            yield from _dimension_problems(name, dimension)
            for other in dimension.when:
                if other not in earlier:
                    yield f"{name}.when: {other} must be before it in search.space; before it is {', '.join(earlier) or 'nothing'}"
        else:
            yield from _value_problems(name, [(name, dimension)])
        earlier.append(name)
    if not any(isinstance(dimension, Dimension) for dimension in space.values()):
        yield "space: every parameter is fixed, so there is nothing to search"


def _dimension_problems(name: str, dimension: Dimension) -> list[str]:
    if isinstance(dimension, Choice):
        return _value_problems(name, ((f"{name}.choices", value) for value in dimension.choices))
    if name == "stem":
        return [f"{name}: expected choices, found a range"]
    # A bound that is out of range may be too large for a float, and so for the messages below.
    if problems := _value_problems(name, [(f"{name}.low", dimension.low), (f"{name}.high", dimension.high)]):
        return problems
    if dimension.low > dimension.high:
        problems.append(f"{name}: low {dimension.low:g} is above high {dimension.high:g}")
    if dimension.log and dimension.low <= 0:
        problems.append(f"{name}: with log = true, expected low above 0, found {dimension.low:g}")
    return problems


def point_problems(points: Iterable[Mapping[str, ParamValue]]) -> Iterator[str]:
    """What is wrong with the points to try, a line a problem."""
    for index, point in enumerate(points):
        for name, value in point.items():
            yield from _value_problems(name, [(f"points[{index}].{name}", value)])
