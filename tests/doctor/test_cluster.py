"""What the doctor says about Ray and its nodes. The nodes and clocks are made up."""

from contextlib import contextmanager

import pytest

from digit_search.cluster.nodes import NodeView
from digit_search.doctor import cluster
from digit_search.doctor.cluster import judge_clock, judge_node, judge_ray
from digit_search.errors import ResourceError

HERE = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1", "torchvision": "0.29.1", "pyarrow": "26.0.1", "optuna": "5.0.0"}


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setattr(cluster, "installed_version", HERE.get)
    monkeypatch.setattr(cluster.platform, "python_version", lambda: HERE["python"])
    monkeypatch.setattr(cluster.platform, "system", lambda: "Linux")


def node(name="10.0.0.1", *, gpus=0, **values):
    return NodeView(name, {"CPU": 4, "GPU": gpus}, **({"versions": HERE} | values))


@contextmanager
def running():
    yield ""


def test_a_cluster_is_reported_node_by_node_with_each_clock():
    nodes = [node(), node("10.0.0.2", clock_offset_seconds=0.004, clock_error_seconds=0.001)]
    findings = list(judge_ray("10.0.0.1:6379", running, lambda: nodes))
    assert [finding.name for finding in findings] == ["Ray", "node", "clock", "node", "clock"]
    assert {finding.level for finding in findings} == {"ok"}
    assert findings[0].found == "2.60.0, joined the cluster at 10.0.0.1:6379; 2 nodes"
    assert findings[4].found == "10.0.0.2: +0.004 s from ours, give or take 0.001 s"


def test_the_clock_of_a_single_node_is_not_checked():
    assert [finding.name for finding in judge_ray("", running, lambda: [node()])] == ["Ray", "node"]


@pytest.mark.parametrize(("address", "remedy"), [("10.0.0.1:6379", ""), ("", "network setup")])
def test_the_reason_why_ray_does_not_start_or_cannot_be_joined_is_one_line(address, remedy):
    @contextmanager
    def refuse():
        raise ResourceError("Ray did not\nanswer within 120 s")
        yield

    (finding,) = judge_ray(address, refuse, pytest.fail)
    assert (finding.level, finding.found) == ("problem", "Ray did not answer within 120 s")
    assert (remedy in finding.remedy, bool(finding.remedy)) == (True, bool(remedy))


@pytest.mark.parametrize(
    ("values", "level", "text"),
    [
        ({}, "ok", "CPU 4, GPU 0; python 3.11.7, ray 2.60.0"),
        ({"versions": HERE | {"torch": "2.14.1+cu130"}}, "ok", "torch 2.14.1+cu130"),
        ({"versions": HERE | {"torch": "2.13.0"}}, "warning", "this machine: torch 2.14.1"),
        ({"versions": HERE | {"python": "3.11.9"}}, "warning", "this machine: python 3.11.7"),
        ({"versions": {"python": "3.11.7", "ray": "2.60.0"}}, "problem", "without torch, torchvision, pyarrow, optuna"),
        ({"gpus": 2, "sees_cuda": True}, "ok", "GPU 2"),
        ({"gpus": 2}, "warning", "Ray counts a GPU that torch cannot use"),
        ({"versions": {}, "error": "no answer within 60 s"}, "problem", "no answer within 60 s"),
    ],
)
def test_a_node_is_compared_with_what_is_installed_here(values, level, text):
    finding = judge_node(node(**values))
    assert finding.level == level
    assert text in finding.found
    assert bool(finding.remedy) is (level != "ok")


@pytest.mark.parametrize(
    ("offset", "error", "level"),
    [(0.0, 0.0, "ok"), (-1.0, 0.0, "ok"), (1.2, 0.3, "ok"), (1.2, 0.1, "warning"), (-2.0, 0.1, "warning"), (-301.0, 0.1, "problem")],
)
def test_clocks_that_certainly_differ_are_reported(offset, error, level):
    finding = judge_clock(node(clock_offset_seconds=offset, clock_error_seconds=error))
    assert (finding.level, bool(finding.remedy)) == (level, level != "ok")
