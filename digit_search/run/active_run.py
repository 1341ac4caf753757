"""A run that this process works on, and the observers that watch it."""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager

from digit_search.config.settings import RunSettings
from digit_search.run.events import EventLog, PhaseStarted, RunEvent
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState, load_state

Say = Callable[[str], None]
"""Tells the user one line."""


class Observer:
    """Watches a run. All methods are called from the search's own loop, so they must return at once."""

    def on_event(self, event: RunEvent, state: RunState) -> None:
        """The event has just happened; `state` includes it already."""

    def on_step(self, state: RunState) -> None:
        """The search has made another step. Called many times a second."""

    def close(self) -> None:
        """There is nothing more to see."""


class ActiveRun:
    """What a run was asked to do, where it is kept, and what has happened in it so far.

    `record` is the only way in which something happens: the event is on the disk first, then in the state, then shown to the observers.
    """

    def __init__(self, settings: RunSettings, folder: RunFolder, say: Say, interrupts: Interrupts) -> None:
        """Take up the run in `folder`, which this process has locked.

        Raises:
            RunFolderError: if its events are broken.
            StorageError: if they cannot be read.
        """
        self.settings = settings
        self.folder = folder
        self.say = say
        self.interrupts = interrupts
        self._log = EventLog(folder.events)
        rank_by = settings.search.rank_by
        self.state = load_state(folder.events, rank_by) if folder.events.exists() else RunState(rank_by)
        self._observers: Sequence[Observer] = ()

    def record(self, event: RunEvent) -> None:
        """Write an event down, and show it to all observers.

        Raises:
            StorageError: if the disk does not take it; then it has not happened.
        """
        self._log.append(event)
        self.state.apply(event)
        for observer in self._observers:
            observer.on_event(event, self.state)

    def start_phase(self, name: str) -> None:
        """Record that a phase begins."""
        self.record(PhaseStarted(name=name))

    def step(self, running: Set[int]) -> None:
        """Say which trials a worker computes now."""
        self.state.running = running
        for observer in self._observers:
            observer.on_step(self.state)

    @contextmanager
    def observed_by(self, observers: Sequence[Observer]) -> Iterator[None]:
        """Show everything that happens in here to these observers."""
        self._observers = observers
        # All are closed, also when one of them raises.
        with ExitStack() as stack:
            for observer in observers:
                stack.callback(observer.close)
            try:
                yield
            finally:
                self._observers, self.state.running = (), frozenset()
