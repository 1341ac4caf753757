"""Which worker ran which trial when, on a clock that leaves out the pauses of the run."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digit_search.records import EpochMetrics, TrialRecord, TrialStatus


@dataclass(frozen=True, slots=True)
class WorkClock:
    """Counts the seconds of work since the run's first event. It stops between an interruption and the resume."""

    spans: Sequence[tuple[float, float]] = ()
    """Begin and end of each process that worked on the run, in order, in seconds since the Unix epoch."""

    @property
    def seconds(self) -> float:
        """All seconds of work."""
        return sum(end - begin for begin, end in self.spans)

    def at(self, moment: float) -> float:
        """The seconds of work before a moment, which is in seconds since the Unix epoch."""
        return sum(min(max(moment - begin, 0.0), end - begin) for begin, end in self.spans)

    @property
    def rests(self) -> list[tuple[float, float]]:
        """The pauses between interruption and resume: the seconds of work before each, and its length in seconds."""
        pairs = zip(self.spans, self.spans[1:], strict=False)
        return [(self.at(end), max(begin - end, 0.0)) for (_, end), (begin, _) in pairs]


Span = tuple[TrialRecord, float, float]
"""A trial with the begin and the end of its work, in seconds on the `WorkClock`."""
Reports = Mapping[int, Sequence[tuple[float, EpochMetrics]]]
"""By trial: the moment of each report, in seconds since the Unix epoch, and the report."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The trials of one worker, in order.

    Ray does not record which process ran a trial. So a trial is given to the worker of its node that has been free for the longest time.
    """

    node: str
    trials: tuple[Span, ...]

    @property
    def busy_seconds(self) -> float:
        return sum(end - begin for _, begin, end in self.trials)


def worker_lanes(records: Sequence[TrialRecord], clock: WorkClock, reports: Reports | None = None) -> list[Lane]:
    """Distribute the trials over as few workers as each node needs, and return the workers by node.

    A running trial lasts until the end of the clock. A trial whose begin is unknown is left out.
    """
    nodes = {record.node for record in records if record.node}
    only_node = nodes.pop() if len(nodes) == 1 else None
    reports = reports or {}
    spans = [span for record in records if record.started_at > 0 for span in _spans(record, clock, reports.get(record.trial, ()))]
    lanes: dict[str, list[list[Span]]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span[1], span[0].trial)):
        # A trial that reported nothing names no node. If there is only one node, the trial ran there.
        node = lanes[only_node or span[0].node]
        free = [lane for lane in node if lane[-1][2] <= span[1]]
        if free:
            # If the first free worker got it instead, the last workers would get hardly any trials.
            min(free, key=lambda lane: lane[-1][2]).append(span)
        else:
            node.append([span])
    return [Lane(name, tuple(lane)) for name in sorted(lanes) for lane in lanes[name]]


def _spans(record: TrialRecord, clock: WorkClock, reports: Sequence[tuple[float, EpochMetrics]]) -> list[Span]:
    """When a worker was busy with the trial: one span for each process that worked on it.

    Ray Tune starts a trial before a worker is free for it. So a trial's work begins no earlier than its first report minus the seconds
    that this report covers.
    """
    started, ended = clock.at(record.started_at), clock.at(record.ended_at)
    last = clock.seconds if record.status is TrialStatus.RUNNING else ended
    if not reports:
        begin = max(started, ended - record.seconds) if record.epochs else started
        return [(record, begin, max(last, begin))]
    process_ends = [moment for moment, _ in clock.rests]
    work: dict[int, tuple[float, float]] = {}
    for at, metrics in reports:
        end = clock.at(at)
        process = bisect_left(process_ends, end)
        begin = max(started, end - metrics.seconds, process_ends[process - 1] if process else 0.0)
        first_begin, _ = work.get(process, (begin, end))
        work[process] = min(begin, first_begin), end
    final = max(work)
    work[final] = work[final][0], max(last, work[final][1])
    return [(record, *work[process]) for process in sorted(work)]
