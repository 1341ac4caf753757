"""What the story tells its user on the way."""

import pytest

from digit_search.config.loading import load_settings
from digit_search.errors import RunFolderError
from digit_search.pipeline import _tell_best, resume, retrain_run
from digit_search.records import EpochMetrics, TrialParams, TrialRecord, TrialStatus
from digit_search.search.stage import what_was_done


def record(trial, accuracy, status=TrialStatus.COMPLETED, num_epochs=1):
    epochs = [EpochMetrics(epoch, 1.0, 0.5, 1 - accuracy, accuracy, 0.01, 100, 1.0) for epoch in range(1, num_epochs + 1)]
    return TrialRecord(trial, status, TrialParams(), trial, epochs)


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        (
            [0.9, 0.99, 0.985, 0.9825],
            "best: trial 1, validation accuracy 0.9900 on 400 digits (95 % interval 0.975 to 0.996); tied with trials 2, 3",
        ),
        ([0.99, 0.9875, 0.5], "best: trial 0, validation accuracy 0.9900 on 400 digits (95 % interval 0.975 to 0.996); tied with trial 1"),
        ([0.5, 0.99], "best: trial 1, validation accuracy 0.9900 on 400 digits (95 % interval 0.975 to 0.996)"),
    ],
)
def test_the_best_trial_is_named_with_those_that_it_does_not_clearly_beat(accuracies, told):
    said = []
    _tell_best([record(trial, accuracy) for trial, accuracy in enumerate(accuracies)], "val_accuracy", 400, said.append)
    assert said == [told]


def test_a_search_that_ran_out_of_time_says_how_much_of_it_was_done():
    settings = load_settings(None, ["search.samples=6", "search.asha.enabled=false"], {"search.time_budget": "30m"})
    records = [record(0, 0.9, num_epochs=7), record(1, 0.9, TrialStatus.STOPPED), record(2, 0.9, TrialStatus.INTERRUPTED, 2)]
    assert what_was_done(settings, records) == (
        "the time budget of 30m ended the search: 2 of 6 trials ended on their own, 1 were cut short, 3 never began; 10 of about 42 epochs"
    )


@pytest.mark.parametrize("go_on", [lambda folder: resume(folder, str, force=True), lambda folder: retrain_run(folder, 0, None, str)])
def test_a_runs_folder_from_a_stranger_names_no_place_to_write_to(tmp_path, make_run, tiny_data, go_on):
    folder = make_run([TrialStatus.COMPLETED])
    folder.config.write_text(f'[data]\ndir = "{tiny_data}"\ncache_dir = "{tmp_path / "elsewhere"}"\n')
    # This environment.json is none of a real run, so it goes no further than its digits.
    with pytest.raises(RunFolderError, match="surroundings"):
        go_on(folder)
    assert not (tmp_path / "elsewhere").exists()
