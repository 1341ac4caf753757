"""How many trials at a time a cluster can run, as its nodes and its other searches come and go; no cluster."""

from types import SimpleNamespace

import pytest
from ray.tune import PlacementGroupFactory

from digit_search.cluster import storage_probe
from digit_search.cluster.capacity import LOOK_EVERY_SECONDS, PATIENCE_SECONDS, Capacity, ClusterSnapshot, fair_shares
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.storage_probe import AvoidNodes, StorageProbe
from digit_search.errors import RayLostError, StorageError
from digit_search.search import trainable
from digit_search.search.trainable import TrialSetup, train_trial


@pytest.mark.parametrize(
    ("capacity", "wants", "shares"),
    [
        (8, [20], [8]),
        (8, [20, 20], [4, 4]),
        (8, [20, 1], [7, 1]),
        (7, [20, 20], [4, 3]),
        (8, [2, 20, 20], [2, 3, 3]),
        (2, [20, 20, 20], [1, 1, 1]),
        (0, [20], [1]),
        (64, [3, 4], [3, 4]),
    ],
)
def test_capacity_is_dealt_out_in_turn_to_those_that_want_more(capacity, wants, shares):
    assert fair_shares(capacity, wants) == shares


class Watched:
    """A capacity whose cluster and clock the test sets."""

    def __init__(self, most=20, plan=WorkerPlan(1, 1, 0.0)) -> None:  # noqa: B008
        self.said: list[str] = []
        self.clock = 0.0
        self.cluster = ClusterSnapshot({}, False, [20], 0)
        self.probe = SimpleNamespace(good=set(), look=lambda nodes: None)
        self.capacity = Capacity(plan, most=most, probe=self.probe, say=self.said.append, look=lambda: self.cluster, now=lambda: self.clock)

    def limit(
        self, *nodes: dict[str, float], may_grow: bool = False, wants: tuple[int, ...] = (20,), own: int = 0, after: float = 0.0
    ) -> int | None:
        """The limit where there are these nodes."""
        self.clock += after + LOOK_EVERY_SECONDS
        self.cluster = ClusterSnapshot({f"node{number}": node for number, node in enumerate(nodes)}, may_grow, wants, own)
        self.probe.good |= self.cluster.nodes.keys()
        return self.capacity.limit()


def test_a_node_that_joins_is_used_and_one_that_is_lost_is_not_waited_for():
    watched = Watched()
    assert watched.limit({"CPU": 2}) == 2
    assert watched.limit({"CPU": 2}, {"CPU": 4}) == 6
    assert watched.limit({"CPU": 2}) == 2
    assert watched.said == ["the cluster has 2 nodes: 6 trials at a time", "the cluster has 1 node: 2 trials at a time"]


def test_the_cluster_is_looked_at_every_two_seconds():
    watched = Watched()
    assert watched.limit({"CPU": 2}) == 2
    watched.clock += LOOK_EVERY_SECONDS - 0.1
    assert watched.capacity.limit() is None


def test_never_more_trials_than_asked_for():
    assert Watched(most=3).limit({"CPU": 8}) == 3


def test_another_search_gets_its_share_and_what_it_does_not_want_is_ours():
    watched = Watched()
    assert watched.limit({"CPU": 8}) == 8
    assert watched.limit({"CPU": 8}, wants=(20, 20)) == 4
    assert watched.said[-1] == "the cluster has 1 node, shared by 2 searches: 4 trials at a time"
    assert watched.limit({"CPU": 8}, wants=(20, 2)) == 6
    assert watched.limit({"CPU": 8}) == 8


def test_a_node_that_cannot_keep_checkpoints_is_not_counted():
    watched = Watched()
    watched.limit({"CPU": 2})
    watched.clock += LOOK_EVERY_SECONDS
    watched.cluster = ClusterSnapshot({"node0": {"CPU": 2}, "far": {"CPU": 8}}, False, [20], 0)
    assert watched.capacity.limit() == 2


def test_a_cluster_that_grows_is_asked_for_as_many_again_from_nothing_on():
    watched = Watched(plan=WorkerPlan(1, 1, 1.0))
    assert watched.limit({"CPU": 2}, may_grow=True) == 1
    assert watched.limit({"CPU": 2}, {"CPU": 8, "GPU": 4}, may_grow=True) == 8
    assert watched.limit({"CPU": 2}, {"CPU": 8, "GPU": 4}, may_grow=True, after=PATIENCE_SECONDS + 1) == 4


def test_a_node_that_never_comes_ends_the_search_with_the_reason():
    watched = Watched(plan=WorkerPlan(1, 1, 1.0))
    watched.limit({"CPU": 2}, may_grow=True)
    with pytest.raises(RayLostError, match="no node of the cluster has had room for a trial for 10 minutes"):
        watched.limit({"CPU": 2}, may_grow=True, after=PATIENCE_SECONDS + 1)


def test_a_trial_avoids_bad_nodes_and_its_placement_stays_the_same_to_tune(monkeypatch):
    asked = []
    monkeypatch.setattr(storage_probe, "placement_group", lambda *args, **options: asked.append(options["bundle_label_selector"]))
    bad: dict[str, str] = {}
    place = AvoidNodes({"CPU": 1, "GPU": 0}, bad)
    place.to_placement_group()
    bad |= {"b": "no such folder", "a": "no such folder"}
    place.to_placement_group()
    assert asked == [None, [{"ray.io/node-id": "!in(a,b)"}]]
    assert place == AvoidNodes({"CPU": 1, "GPU": 0}, {})
    assert hash(place) == hash(PlacementGroupFactory([{"CPU": 1, "GPU": 0}]))


def test_a_worker_trains_nothing_where_it_does_not_reach_the_results(tmp_path, monkeypatch):
    reported = []
    here = SimpleNamespace(get_node_id=lambda: "new")
    monkeypatch.setattr(storage_probe, "ray", SimpleNamespace(get_runtime_context=lambda: here))
    monkeypatch.setattr(trainable, "tune", SimpleNamespace(report=reported.append))
    setup = TrialSetup(None, str(tmp_path / "gone"), 2, None, 1, None, probe_token="0123456789")
    with pytest.raises(StorageError):
        train_trial({"trial": 0}, None, setup)
    assert reported == [{"unreached": "No such file or directory", "node_id": "new"}]


def test_the_probe_says_what_a_node_lacks(tmp_path, monkeypatch):
    probe = StorageProbe(str(tmp_path / "tune"), pytest.fail)
    probe.begin()
    token = probe.token
    assert storage_probe.probe(str(tmp_path / "tune"), token, "node") == ""
    assert "No such file" in storage_probe.probe(str(tmp_path / "elsewhere"), token, "node")
    assert "No such file" in storage_probe.probe(str(tmp_path / "tune"), "another run's", "node")
    monkeypatch.setattr(storage_probe, "NEEDED", ("torch", "no_such_library"))
    assert storage_probe.probe(str(tmp_path / "tune"), token, "node").startswith("no_such_library not installed there")
    probe.end()
    assert list((tmp_path / "tune").iterdir()) == []


def test_the_probe_of_a_store_says_what_keeps_a_node_from_it_and_leaves_nothing(store):
    place = store.uri("results/run/tune")
    assert storage_probe.probe(place, "0123456789", "node") == ""
    assert store.done[-2:] == ["put bucket/results/run/tune/.reach-01234567-node", "delete bucket/results/run/tune/.reach-01234567-node"]
    store.failures_left = 3
    assert "cannot be written: AWS Error NETWORK_CONNECTION" in storage_probe.probe(place, "0123456789", "node")
