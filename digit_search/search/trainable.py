"""The function that Tune runs for each trial, and what it is given. Importing it costs no torch: only workers need that."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from digit_search.data.split import RowSplit
from digit_search.search.study import Told


@dataclass(frozen=True, slots=True)
class TrialSetup:
    """All that every trial of a search shares, beside the digits; small, and sent to each worker."""

    split: RowSplit
    trials: str
    """The folder of the trials' folders; every node reaches it."""
    max_epochs: int
    reports_per_epoch: int
    ema_half_life_epochs: float
    precision: str
    compile: bool
    num_threads: int
    told: Told
    uses_mps: bool = False


def train_trial(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> None:
    """Run one trial in a worker, where torch is imported once for all trials that it gets."""
    from digit_search.search.worker import run_trial

    run_trial(config, table, setup)
