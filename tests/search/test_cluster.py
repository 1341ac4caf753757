"""How trials share what Ray has; declared resources stand in for hardware."""

import pytest

from digit_search.config import ResourceSettings
from digit_search.errors import ResourceError
from digit_search.search.cluster import LOOPBACK, RaySettings, WorkerPlan, _bounded, _start_options, plan_workers


@pytest.mark.parametrize(
    ("settings", "resources", "expected"),
    [
        ({}, {"CPU": 2}, (2, 1, 0.0)),
        ({}, {"CPU": 16, "GPU": 4}, (4, 1, 1.0)),
        ({}, {"CPU": 2, "GPU": 4}, (2, 1, 1.0)),
        ({"gpus_per_trial": 0.25}, {"CPU": 16, "GPU": 4}, (16, 1, 0.25)),
        ({"gpus_per_trial": 0.3}, {"CPU": 16, "GPU": 1}, (3, 1, 0.3)),
        ({"gpus_per_trial": 2.0}, {"CPU": 16, "GPU": 5}, (2, 1, 2.0)),
        ({"gpus_per_trial": 0.0}, {"CPU": 16, "GPU": 4}, (16, 1, 0.0)),
        ({"cpus_per_trial": 4}, {"CPU": 10}, (2, 4, 0.0)),
        ({"workers": 3}, {"CPU": 8}, (3, 1, 0.0)),
    ],
)
def test_as_many_trials_as_fit_run_at_a_time(settings, resources, expected):
    plan = plan_workers(ResourceSettings(**settings), resources)
    assert (plan.workers, plan.cpus_per_trial, plan.gpus_per_trial) == expected


@pytest.mark.parametrize(
    ("settings", "resources", "message"),
    [
        ({"cpus_per_trial": 4}, {"CPU": 2}, "one trial needs 4 CPUs and 0 GPUs, but Ray has 2 CPUs and 0 GPUs"),
        ({"gpus_per_trial": 1.0}, {"CPU": 2}, "but Ray has 2 CPUs and 0 GPUs"),
        ({"workers": 3}, {"CPU": 2}, "--workers 3: expected at most 2"),
    ],
)
def test_what_can_never_fit_is_refused_with_what_there_is(settings, resources, message):
    with pytest.raises(ResourceError, match=message):
        plan_workers(ResourceSettings(**settings), resources)


def test_an_apple_gpu_that_ray_does_not_count_runs_one_trial_at_a_time():
    plan = plan_workers(ResourceSettings(), {"CPU": 8}, has_mps=True)
    assert (plan.workers, plan.gpus_per_trial, plan.uses_mps) == (1, 0.0, True)
    assert not plan_workers(ResourceSettings(gpus_per_trial=0.0), {"CPU": 8}, has_mps=True).uses_mps


def test_an_apple_gpu_that_ray_counts_is_a_gpu():
    plan = plan_workers(ResourceSettings(), {"CPU": 8, "GPU": 1}, has_mps=True)
    assert (plan.workers, plan.gpus_per_trial, plan.uses_mps) == (1, 1.0, False)


def test_the_plan_is_one_readable_line():
    plan = WorkerPlan(16, 1, 0.25)
    assert plan.describe({"CPU": 32, "GPU": 4}) == "32 CPUs, 4 GPUs: 16 trials at a time, 1 CPU and 0.25 GPU each"


def test_our_own_ray_listens_on_loopback_and_joins_nobody_elses():
    options = _start_options(RaySettings())
    assert (options["address"], options["dashboard_host"], options["_node_ip_address"]) == ("local", LOOPBACK, LOOPBACK)
    joined = _start_options(RaySettings(address="10.0.0.1:6379"))
    assert joined["address"] == "10.0.0.1:6379"
    assert "object_store_memory" not in joined


def test_a_start_that_hangs_is_bounded_in_time():
    with pytest.raises(ResourceError, match=r"did not start within 0\.05 s"), _bounded(0.05):
        while True:
            pass
