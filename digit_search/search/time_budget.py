"""When the search must end."""

import time
from collections.abc import Callable

from digit_search.config.settings import parse_duration


class TimeBudget:
    """The search's time budget, counted from `started_at` on the clock `now`."""

    def __init__(self, duration: str, started_at: float, now: Callable[[], float] = time.monotonic) -> None:
        """`duration` is e.g. `30m`; the empty string is no limit."""
        self._ends_at = started_at + parse_duration(duration)
        self._now = now

    def is_spent(self) -> bool:
        return self._now() >= self._ends_at

    def seconds_left(self) -> float:
        """Infinity where there is no limit, and never below 0."""
        return max(self._ends_at - self._now(), 0.0)
