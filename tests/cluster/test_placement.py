"""How many trials run at a time. The resources are declared, so no hardware is needed."""

import pytest

from digit_search.cluster import placement
from digit_search.cluster.placement import WorkerPlan, check_gpus, plan_workers
from digit_search.config.settings import ResourceSettings
from digit_search.errors import ResourceError
from digit_search.training import device, device_check


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
    [
        ({}, [{"CPU": 2}], (2, 1, 0.0)),
        ({}, [{"CPU": 16, "GPU": 4}], (4, 1, 1.0)),
        ({}, [{"CPU": 2, "GPU": 4}], (2, 1, 1.0)),
        ({"gpus_per_trial": 0.25}, [{"CPU": 16, "GPU": 4}], (16, 1, 0.25)),
        ({"gpus_per_trial": 0.3}, [{"CPU": 16, "GPU": 1}], (3, 1, 0.3)),
        ({"gpus_per_trial": 0.6}, [{"CPU": 16, "GPU": 4}], (4, 1, 0.6)),
        ({"gpus_per_trial": 1 / 3}, [{"CPU": 16, "GPU": 2}], (6, 1, 1 / 3)),
        ({"gpus_per_trial": 2.0}, [{"CPU": 16, "GPU": 5}], (2, 1, 2.0)),
        ({"gpus_per_trial": 0.0}, [{"CPU": 16, "GPU": 4}], (16, 1, 0.0)),
        ({"cpus_per_trial": 4}, [{"CPU": 10}], (2, 4, 0.0)),
        ({"workers": 3}, [{"CPU": 8}], (3, 1, 0.0)),
        # Several nodes: no trial spans two of them.
        ({}, [{"CPU": 1}, {"CPU": 3}], (4, 1, 0.0)),
        ({"cpus_per_trial": 2}, [{"CPU": 3}, {"CPU": 3}, {"CPU": 1}], (2, 2, 0.0)),
        ({"gpus_per_trial": 2.0}, [{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 3}], (1, 1, 2.0)),
        ({"gpus_per_trial": 0.5}, [{"CPU": 1, "GPU": 4}, {"CPU": 64}], (1, 1, 0.5)),
        ({}, [{"CPU": 64}, {"CPU": 4, "GPU": 2}], (2, 1, 1.0)),
        ({"cpus_per_trial": 2}, [{}, {"CPU": 2}], (1, 2, 0.0)),
    ],
)
def test_as_many_trials_as_fit_run_at_the_same_time(settings, nodes, expected):
    plan = plan_workers(ResourceSettings(**settings), nodes)
    assert (plan.workers, plan.cpus_per_trial, plan.gpus_per_trial) == expected


@pytest.mark.parametrize(
    ("settings", "nodes", "message"),
    [
        ({"cpus_per_trial": 4}, [{"CPU": 2}], "one trial needs 4 CPUs and 0 GPUs on one node, but Ray has 2 CPUs and 0 GPUs; ask for less"),
        ({"gpus_per_trial": 1.0}, [{"CPU": 2}], "but Ray has 2 CPUs and 0 GPUs"),
        (
            {"cpus_per_trial": 2},
            [{"CPU": 1}, {"CPU": 1}],
            "on one node, but Ray has 1 CPU and 0 GPUs on each of 2 nodes",
        ),
        ({}, [{"GPU": 1}, {"CPU": 8}], "but Ray has 0 CPUs and 1 GPU on one node, 8 CPUs and 0 GPUs on one node"),
        ({"gpus_per_trial": 2.0}, [{"CPU": 8, "GPU": 1}] * 4, "but Ray has 8 CPUs and 1 GPU on each of 4 nodes"),
        (
            {"workers": 3},
            [{"CPU": 2}],
            "--workers 3: expected at most 2, as many trials as fit at 1 CPU and 0 GPUs each; Ray has 2 CPUs",
        ),
        ({}, [], "but Ray has no nodes"),
    ],
)
def test_a_plan_that_can_never_fit_is_refused_and_the_message_lists_the_nodes(settings, nodes, message):
    with pytest.raises(ResourceError, match=message):
        plan_workers(ResourceSettings(**settings), nodes)


@pytest.mark.parametrize(("settings", "workers"), [({}, 1), ({"gpus_per_trial": 1.0}, 1), ({"gpus_per_trial": 0.5}, 2)])
def test_an_apple_gpu_is_shared_the_same_whether_or_not_ray_counts_it(settings, workers):
    plan = plan_workers(ResourceSettings(**settings), [{"CPU": 8}], has_mps=True)
    assert (plan.workers, plan.gpus_per_trial, plan.uses_mps) == (workers, 0.0, True)
    counted = plan_workers(ResourceSettings(**settings), [{"CPU": 8, "GPU": 1}], has_mps=True)
    assert (counted.workers, counted.uses_mps) == (workers, False)
    assert counted.gpus_per_trial == settings.get("gpus_per_trial", 1.0)


def test_more_workers_than_fit_on_an_apple_gpu_are_refused():
    with pytest.raises(ResourceError, match=r"--workers 4: expected at most 1, .* 8 CPUs and 1 GPU"):
        plan_workers(ResourceSettings(workers=4), [{"CPU": 8}], has_mps=True)


def test_an_apple_gpu_is_not_used_if_trials_need_none_or_there_are_several_nodes():
    assert not plan_workers(ResourceSettings(gpus_per_trial=0.0), [{"CPU": 8}], has_mps=True).uses_mps
    several = plan_workers(ResourceSettings(), [{"CPU": 8}, {"CPU": 4}], has_mps=True)
    assert (several.workers, several.uses_mps) == (12, False)


@pytest.mark.parametrize(
    ("plan", "nodes", "line"),
    [
        (WorkerPlan(16, 1, 0.25), [{"CPU": 32, "GPU": 4}], "32 CPUs, 4 GPUs: 16 trials at a time, 1 CPU and 0.25 GPU each"),
        (WorkerPlan(1, 2, 0.0), [{"CPU": 1}, {"CPU": 3}], "2 nodes, 4 CPUs, no GPU used: 1 trial at a time, 2 CPUs each"),
        (WorkerPlan(1, 1, 0.0, uses_mps=True), [{"CPU": 8}], "8 CPUs, Apple GPU: 1 trial at a time, 1 CPU each"),
    ],
)
def test_the_plan_is_one_readable_line(plan, nodes, line):
    assert plan.describe(nodes) == line


GPU_PLAN = WorkerPlan(1, 1, 1.0)


@pytest.fixture
def torch_sees(monkeypatch):
    """A function that makes torch report CUDA or MPS. The check of operators always fails."""

    def lacks(plan):
        raise ResourceError(f"{plan.device.type} lacks aten::x")

    def sees(*, has_cuda, has_mps):
        monkeypatch.setattr(device, "visible_gpus", lambda: (has_cuda, has_mps))
        monkeypatch.setattr(placement, "mps_here", lambda: has_mps)
        monkeypatch.setattr(device_check, "check_operators", lacks)

    return sees


@pytest.mark.parametrize("plan", [GPU_PLAN, WorkerPlan(1, 1, 0.0, uses_mps=True)])
@pytest.mark.parametrize("is_own_ray", [True, False])
def test_operators_that_mps_lacks_are_named_before_the_search(torch_sees, plan, is_own_ray):
    torch_sees(has_cuda=False, has_mps=True)
    with pytest.raises(ResourceError, match="mps lacks aten::x"):
        check_gpus(plan, is_own_ray=is_own_ray, say=pytest.fail)


def test_operators_are_not_checked_for_trials_on_the_cpu_or_on_cuda(torch_sees):
    torch_sees(has_cuda=False, has_mps=True)
    check_gpus(WorkerPlan(8, 1, 0.0), is_own_ray=True, say=pytest.fail)
    torch_sees(has_cuda=True, has_mps=False)
    check_gpus(GPU_PLAN, is_own_ray=True, say=pytest.fail)


def test_a_gpu_that_ray_counts_but_torch_cannot_use_is_reported(torch_sees):
    torch_sees(has_cuda=False, has_mps=False)
    said = []
    check_gpus(GPU_PLAN, is_own_ray=True, say=said.append)
    assert len(said) == 1
    assert "this torch cannot use, so the trials compute on the CPU" in said[0]
    # The nodes of a cluster are other machines.
    check_gpus(GPU_PLAN, is_own_ray=False, say=pytest.fail)
