"""Which worker ran which trial when, as far as the records tell."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digit_search.records import TrialRecord, TrialStatus
from digit_search.report.work_clock import WorkClock

Span = tuple[TrialRecord, float, float]
"""A trial with its begin and end, in seconds of the run's work."""
Reports = Mapping[int, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Lane:
    """What one worker did. Ray does not say which process ran a trial, so a lane is the first worker of the node that was free."""

    node: str
    trials: tuple[Span, ...]
    """In order."""

    @property
    def busy_seconds(self) -> float:
        return sum(end - begin for _, begin, end in self.trials)


def worker_lanes(records: Sequence[TrialRecord], clock: WorkClock, reports: Reports | None = None) -> list[Lane]:
    """Lay the trials out on as few workers a node as were busy at a time, by node; a trial that has no end yet lasts until the clock's.

    Args:
        reports: when each trial reported, and the seconds of work before, as the history has them.
    """
    nodes = {record.node for record in records if record.node}
    begun = [record for record in records if record.started_at > 0]
    spans = [span for record in begun for span in _spans(record, clock, (reports or {}).get(record.trial, ()))]
    spans.sort(key=lambda span: (span[1], span[0].trial))
    lanes: dict[str, list[list[Span]]] = defaultdict(list)
    for span in spans:
        # A trial that reported nothing names no node; where there is only one, it ran there.
        node = lanes[next(iter(nodes)) if len(nodes) == 1 else span[0].node]
        free = [lane for lane in node if lane[-1][2] <= span[1]]
        if free:
            # The one that idled longest: to take any would leave the last workers without trials.
            min(free, key=lambda lane: lane[-1][2]).append(span)
        else:
            node.append([span])
    return [Lane(name, tuple(lane)) for name in sorted(lanes) for lane in lanes[name]]


def _spans(record: TrialRecord, clock: WorkClock, reports: Sequence[tuple[float, float]]) -> list[Span]:
    """When the trial kept a worker busy, once for each process that worked on the run.

    Ray Tune asks for a trial before a worker is free for it, so a trial that reported began its work no earlier than its reported
    seconds before its report.
    """
    started, ended = clock.at(record.started_at), clock.at(record.ended_at)
    last = clock.seconds if record.status is TrialStatus.RUNNING else ended
    if not reports:
        begin = max(started, ended - record.seconds) if record.epochs else started
        return [(record, begin, max(last, begin))]
    rests = [moment for moment, _ in clock.rests]
    pieces: dict[int, tuple[float, float]] = {}
    for at, seconds in reports:
        end = clock.at(at)
        process = bisect_left(rests, end)
        begin = max(started, end - seconds, rests[process - 1] if process else 0.0)
        pieces[process] = (min(begin, pieces.get(process, (begin,))[0]), end)
    final = max(pieces)
    pieces[final] = (pieces[final][0], max(last, pieces[final][1]))
    return [(record, *pieces[process]) for process in sorted(pieces)]
