"""A run is resumed only with the data, the settings and the versions with which it began."""

import json

import pytest

from digit_search.config.loading import load_settings
from digit_search.data.load import load_digits
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.errors import RunFolderError
from digit_search.run import environment
from digit_search.run.environment import check_same_run, check_same_settings, describe_environment


@pytest.fixture
def digits(tiny_data):
    return load_digits(str(tiny_data), max_csv_bytes=1 << 30)


@pytest.fixture
def path(tmp_path, digits):
    """The environment.json of a run with the default settings."""
    split = split_rows(label_view(digits.train), validation_fraction=0.1, seed=0, file="train.csv")
    path = tmp_path / "environment.json"
    path.write_text(describe_environment(load_settings(), digits, split))
    return path


def test_the_same_data_settings_and_versions_are_accepted(path, digits):
    check_same_settings(path, load_settings())
    check_same_run(path, digits, force=False)


@pytest.mark.parametrize(
    ("assignment", "difference"),
    [
        ("search.samples=7", "search.samples was 20 and is 7"),
        ("seed=1", "seed was 0 and is 1"),
        ("search.space.lr.high=0.1", "search.space was "),
        ("resources.cpus_per_trial=2", "resources.cpus_per_trial was 1 and is 2"),
        ("search.asha.max_epochs=30", "search.asha.max_epochs was 7 and is 30"),
    ],
)
def test_changed_settings_are_refused_with_their_names_and_values(path, assignment, difference):
    with pytest.raises(RunFolderError, match=r"config\.toml: expected the settings that the run began with") as caught:
        check_same_settings(path, load_settings(None, [assignment]))
    assert difference in str(caught.value)


def test_settings_that_change_no_result_may_change(path):
    changes = ["resources.workers=1", "ray.dashboard=false", "search.trial_timeout=", "search.max_failures=9", "data.dir=elsewhere"]
    check_same_settings(path, load_settings(None, changes))


def test_a_run_of_an_older_version_may_lack_a_setting(path):
    recorded = json.loads(path.read_text())
    del recorded["settings"]["search"]["asha"]
    path.write_text(json.dumps(recorded))
    check_same_settings(path, load_settings())


def test_other_data_are_refused_even_with_force(path, digits):
    recorded = json.loads(path.read_text())
    recorded["data"]["train_fingerprint"] = "0" * 64
    path.write_text(json.dumps(recorded))
    with pytest.raises(RunFolderError, match=r"expected the train\.csv that the run began with"):
        check_same_run(path, digits, force=True)


def test_other_versions_are_refused_with_their_names_unless_forced(path, digits, monkeypatch):
    monkeypatch.setattr(environment, "library_versions", lambda: {"torch": "99"})
    with pytest.raises(RunFolderError, match=r"torch 2\.\S+ is now 99.*--force"):
        check_same_run(path, digits, force=False)
    check_same_run(path, digits, force=True)
