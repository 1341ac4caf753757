"""A run for the tests of the search, in a new folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from digit_search.config.loading import load_settings
from digit_search.run.active_run import ActiveRun
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder


@pytest.fixture
def make_active_run(tmp_path: Path) -> Callable[..., ActiveRun]:
    """Takes up the run in this test's folder; what it says is in `said`."""

    def make(*assignments: str) -> ActiveRun:
        said: list[str] = []
        run = ActiveRun(load_settings(None, assignments), RunFolder(tmp_path), said.append, Interrupts())
        run.said = said
        return run

    return make
