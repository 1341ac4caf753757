"""When the search must end."""

import time

from digit_search.config.settings import parse_duration


class TimeBudget:
    """The search's time budget, counted from `started_at` by time.monotonic()."""

    def __init__(self, duration: str, started_at: float) -> None:
        """`duration` is e.g. `30m`; the empty string is no limit."""
        self._ends_at = started_at + parse_duration(duration)

    def is_spent(self) -> bool:
        return time.monotonic() >= self._ends_at

    def seconds_left(self) -> float:
        """Infinity where there is no limit, and never below 0."""
        return max(self._ends_at - time.monotonic(), 0.0)
