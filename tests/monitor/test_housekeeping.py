"""What is done when trials end."""

import pytest

from digit_search.monitor import housekeeping
from digit_search.monitor.housekeeping import Housekeeping
from digit_search.records import EpochMetrics, TrialStatus
from digit_search.report.build import write_tables
from digit_search.run.layout import RunFolder
from tests.monitor.observed import Observed


@pytest.mark.parametrize(("cost", "pause"), [(0.1, 5.0), (2.0, 18.0)])
def test_tables_are_written_every_five_seconds_and_take_a_tenth_of_the_time_at_most(tmp_path, monkeypatch, clock, cost, pause):
    written = []

    def write(folder, state, rank_by):
        written.append(clock[0])
        clock[0] += cost

    monkeypatch.setattr(housekeeping, "write_tables_of", write)
    search = Observed(lambda state: Housekeeping(RunFolder(tmp_path), "val_accuracy"))
    search.ended(0, TrialStatus.STOPPED)
    clock[0] += pause - 0.5
    search.ended(1, TrialStatus.STOPPED)
    assert written == [1000.0]
    clock[0] += 1.0
    search.ended(2, TrialStatus.STOPPED)
    assert len(written) == 2


def test_the_tables_hold_every_trial_so_far(tmp_path, clock):
    folder = RunFolder(tmp_path)
    search = Observed(lambda state: Housekeeping(folder, "val_accuracy"))
    for trial in range(3):
        search.reported(trial, EpochMetrics(1.0, 0.5, 0.5, 0.5, 0.5, 0.01, 100, 1.0))
        search.ended(trial, TrialStatus.STOPPED)
        clock[0] += 10.0
        tables = folder.trials.read_bytes(), folder.epochs.read_bytes(), folder.rungs.read_bytes()
        write_tables(folder, search.state)
        assert tables == (folder.trials.read_bytes(), folder.epochs.read_bytes(), folder.rungs.read_bytes())
        assert len(tables[0].splitlines()) == trial + 2


def test_the_checkpoints_of_interrupted_trials_that_a_resumed_search_has_not_reached_yet_are_kept(tmp_path, clock):
    folder = RunFolder(tmp_path)
    search = Observed(lambda state: Housekeeping(folder, "val_accuracy"))
    for trial, status in enumerate((TrialStatus.INTERRUPTED, TrialStatus.STOPPED, TrialStatus.COMPLETED)):
        search.reported(trial, EpochMetrics(1.0, 0.5, 0.5, 0.5, trial / 10, 0.01, 100, 1.0))
        folder.trial(trial).mkdir(parents=True)
        (folder.trial(trial) / "checkpoint_0.pt").touch()
        search.ended(trial, status)
        clock[0] += 10.0
    assert sorted(path.parent.name for path in tmp_path.rglob("checkpoint_0.pt")) == ["trial_0000", "trial_0002"]


def test_only_checkpoints_of_running_trials_and_of_the_best_one_are_kept(tmp_path, clock):
    folder = RunFolder(tmp_path)
    search = Observed(lambda state: Housekeeping(folder, "val_accuracy"))
    for trial, accuracy in enumerate((0.5, 0.9, 0.7, 0.6)):
        search.reported(trial, EpochMetrics(1.0, 0.5, 0.5, 0.5, accuracy, 0.01, 100, 1.0))
        folder.trial(trial).mkdir(parents=True)
        (folder.trial(trial) / "checkpoint_0.pt").touch()
    for trial in (0, 1, 3):
        search.ended(trial, TrialStatus.STOPPED)
        clock[0] += 10.0
    assert sorted(path.parent.name for path in tmp_path.rglob("checkpoint_0.pt")) == ["trial_0001", "trial_0002"]
