"""Runs made while data.cache_dir was a setting: they can be repeated, resumed and learned from."""

import json

import pytest

from digit_search.config.loading import load_settings, to_toml, to_tree
from digit_search.records import TrialStatus
from digit_search.run.environment import check_same_settings
from digit_search.search.warm_start import load_warm_start


@pytest.fixture
def old_run(make_run):
    """A run with data.cache_dir in its config.toml and its environment.json."""
    folder = make_run([TrialStatus.COMPLETED], name="old")
    settings = load_settings(None, ["seed=3"])
    tree = to_tree(settings)
    tree["data"]["cache_dir"] = "auto"
    folder.config.write_text(to_toml(settings).replace("[data]\n", '[data]\ncache_dir = "auto"\n'))
    data = {"train_fingerprint": "a" * 64, "test_fingerprint": "b" * 64}
    folder.environment.write_text(json.dumps({"settings": tree, "data": data, "versions": {}}))
    return folder


def test_its_settings_are_those_it_began_with(old_run):
    assert "cache_dir" in old_run.config.read_text()
    settings = load_settings(old_run.config)
    assert settings == load_settings(None, ["seed=3"])
    check_same_settings(old_run.environment, settings)


def test_a_new_run_learns_from_its_trials(old_run):
    settings = load_settings(None, (), {"search.warm_start": [str(old_run.path)]})
    _, trials = load_warm_start(settings, old_run.path.parent, "a" * 64, lambda text: None)
    assert [trial.run for trial in trials] == ["old"]
