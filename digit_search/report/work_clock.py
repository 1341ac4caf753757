"""Time as the run spent it: a run that rested between an interruption and its resume did not work meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkClock:
    """Counts the seconds of work from the run's first event on."""

    spans: Sequence[tuple[float, float]] = ()
    """When processes worked on the run, in order, in seconds since the Unix epoch."""

    @property
    def seconds(self) -> float:
        """Of work in all."""
        return sum(end - begin for begin, end in self.spans)

    def at(self, moment: float) -> float:
        """Seconds of work done until a moment, in seconds since the Unix epoch; during a rest the clock stands still."""
        return sum(min(max(moment - begin, 0.0), end - begin) for begin, end in self.spans)

    @property
    def rests(self) -> list[tuple[float, float]]:
        """After how many seconds of work the run rested, and for how many seconds."""
        pairs = zip(self.spans, self.spans[1:], strict=False)
        return [(self.at(end), max(begin - end, 0.0)) for (_, end), (begin, _) in pairs]
