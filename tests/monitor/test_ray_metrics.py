"""The gauges that Ray exports, replaced by fakes; tests/browser reads the real export."""

import pytest

from digit_search.monitor import ray_metrics as module
from digit_search.monitor.ray_metrics import EXPORT_EVERY_SECONDS, GAUGES, RayMetrics
from digit_search.records import EpochMetrics, TrialStatus
from tests.monitor.observed import Observed


class FakeGauge:
    def __init__(self, exported, name, tag_keys):
        self.exported, self.name, self.keys, self.default = exported, name, set(tag_keys), {}

    def set_default_tags(self, tags):
        self.default = tags

    def set(self, value, tags):
        tags = self.default | tags
        assert tags.keys() == self.keys, self.name
        self.exported[self.name, *(tag for tag in tags.values() if tag != "mine")] = value


@pytest.fixture
def exported(monkeypatch):
    """The last value of each gauge, by its name and the values of its tags except the run's."""
    exported = {}
    monkeypatch.setattr(module, "Gauge", lambda name, description, tag_keys: FakeGauge(exported, name, tag_keys))
    return exported


def report(epoch, accuracy):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, 0.1, 0.01, 3600, 12.0, 1.0, accuracy)


def test_every_gauge_is_set_and_a_trial_has_its_own_only_while_it_runs(exported, clock):
    live = Observed(lambda state: RayMetrics("mine", 20))
    live.reported(0, report(2, 0.95))
    live.reported(3, report(1, 0.9))
    live.ended(0, TrialStatus.STOPPED)
    live.step({3, 4})
    assert {name for name, *_ in exported} == GAUGES.keys()
    assert {key[1]: value for key, value in exported.items() if key[0] == "digit_search_trials"} == {
        "completed": 0,
        "stopped": 1,
        "failed": 0,
        "interrupted": 0,
        "running": 2,
    }
    assert exported["digit_search_best_accuracy",] == 0.95
    assert exported["digit_search_best_trial",] == 0
    assert {key: value for key, value in exported.items() if key[-1].startswith("trial_")} == {
        ("digit_search_epoch", "trial_0003"): 1,
        ("digit_search_epoch", "trial_0004"): 0,
        ("digit_search_accuracy", "trial_0003"): 0.9,
        ("digit_search_images_per_second", "trial_0003"): 300.0,
    }


def test_gauges_are_set_again_after_some_seconds_and_not_at_every_step(exported, clock):
    live = Observed(lambda state: RayMetrics("mine", 20))
    live.step({0})
    exported.clear()
    clock[0] += EXPORT_EVERY_SECONDS - 1
    live.step({0})
    assert not exported
    clock[0] += 1
    live.step({0})
    assert exported["digit_search_trials", "running"] == 1
