"""How the values of a searched parameter are placed along an axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from digit_search.config.search_space import INT_PARAMS, Choice, Dimension, ParamValue
from digit_search.records import CORE_PARAM_NAMES, PARAM_NAMES, TrialParams, TrialRecord
from digit_search.report.formats import number

LABELS = {
    "lr": "learning rate (lr)",
    "gamma": "gamma, factor on lr",
    "step_size": "step_size, epochs",
    "batch_size": "batch_size, images",
    "rotation_degrees": "rotation, degrees",
    "shift_pixels": "shift, pixels",
    "weight_decay": "weight decay",
    "accumulation_steps": "accumulation, batches",
    "label_smoothing": "label smoothing",
    "stem": "stem",
}
MAX_CATEGORIES = 12
MAX_TICK_LETTERS = 26
"""With more letters the tick labels of a picture of half the page's width would overlap."""
ROUND_STEPS = [1, 2, 5, 10]
"""matplotlib's own choice, with 1.5 and 3 in it, gives ticks such as 0.45."""


@dataclass(frozen=True, slots=True)
class ParamScale:
    """Where the values of a parameter are on an axis."""

    name: str
    categories: tuple[ParamValue, ...]
    """Evenly spaced values; empty for a number."""
    is_log: bool
    low: float
    """The first and the last position that occur."""
    high: float

    def position(self, value: ParamValue) -> float:
        if self.categories:
            return float(self.categories.index(value))
        return float(np.log10(value)) if self.is_log else float(value)

    def place(self, record: TrialRecord) -> float:
        return self.position(getattr(record.params, self.name))

    def share(self, position: float) -> float:
        """The position as a share of the axis, from 0 to 1; the middle if all trials have the same value."""
        return (position - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def step_aside(self, trial: int, ratio: float = 0.618034) -> float:
        """A small shift, so that equal values do not hide each other: by the golden ratio, so the same for the same trial."""
        return ((trial * ratio) % 1 - 0.5) * 0.4 if self.is_coarse else 0.0

    @property
    def is_coarse(self) -> bool:
        """Whether many trials share a value."""
        return bool(self.categories) or (self.name in INT_PARAMS and not self.is_log)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and texts, from low to high."""
        if self.categories:
            return [(float(index), str(value)) for index, value in enumerate(self.categories)]
        if not self.is_log:
            if self.low == self.high:
                return [(self.low, number(self.low, 4))]
            ticks = self._linear_ticks(6)
            return ticks if sum(len(text) for _, text in ticks) <= MAX_TICK_LETTERS else self._linear_ticks(3)
        decades = range(int(np.floor(self.low)), int(np.ceil(self.high)) + 1)
        steps = (1, 3) if self.high - self.low > 1 else (1, 2, 3, 5, 7)
        positions = [decade + float(np.log10(step)) for decade in decades for step in steps]
        return [(position, number(10**position, 2)) for position in positions if self.low - 0.02 <= position <= self.high + 0.02]

    def _linear_ticks(self, num_steps: int) -> list[tuple[float, str]]:
        locator = MaxNLocator(num_steps, steps=ROUND_STEPS, integer=self.name in INT_PARAMS, min_n_ticks=2)
        return [(value, number(value, 4)) for value in locator.tick_values(self.low, self.high) if self.low <= value <= self.high]


def shown_params(records: Sequence[TrialRecord]) -> list[str]:
    """The core four, and the other parameters that differ between trials."""
    rest = PARAM_NAMES[len(CORE_PARAM_NAMES) :]
    differing = differing_params([record.params for record in records])
    return [*CORE_PARAM_NAMES, *(name for name in rest if name in differing)]


def differing_params(params: Sequence[TrialParams]) -> list[str]:
    """The parameters that do not have the same value everywhere."""
    return [name for name in PARAM_NAMES if len({getattr(values, name) for values in params}) > 1]


def param_scale(name: str, records: Sequence[TrialRecord], dimension: Dimension | ParamValue | None) -> ParamScale:
    """Choose the scale for the values that occur in `records` (at least one); `dimension` is the parameter in the search space."""
    values = sorted({getattr(record.params, name) for record in records})
    is_choice = isinstance(dimension, Choice) and len(values) <= MAX_CATEGORIES
    if is_choice or isinstance(values[0], str):
        return ParamScale(name, tuple(values), False, 0.0, len(values) - 1.0)
    is_log = is_log_scale(name, values[0], dimension)
    low, high = (float(np.log10(value)) if is_log else float(value) for value in (values[0], values[-1]))
    return ParamScale(name, (), is_log, low, high)


def is_log_scale(name: str, lowest: float, dimension: Dimension | ParamValue | None) -> bool:
    """Whether a parameter, whose lowest value is given, is searched or shown logarithmically."""
    return lowest > 0 and (name == "lr" or bool(getattr(dimension, "log", False)))
