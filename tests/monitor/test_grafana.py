"""The Grafana dashboard: Grafana's schema knows every field of it, and its queries use only what we export."""

import json
import re
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from digit_search.monitor.ray_metrics import GAUGES
from digit_search.records import TrialStatus

PATH = Path(__file__).parents[2] / "configs" / "grafana" / "digit_search.json"


@pytest.fixture(scope="module")
def dashboard() -> dict:
    return json.loads(PATH.read_text())


@pytest.fixture(scope="module")
def queries(dashboard) -> list[str]:
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return asked + [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]


def lost(before: object, after: object, path: str = "") -> list[str]:
    """The paths of what `after` lacks or changes."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [place for key in before for place in lost(before[key], after.get(key, "missing"), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [place for index, pair in enumerate(zip(before, after, strict=True)) for place in lost(*pair, f"{path}[{index}]")]
    return [] if before == after else [path]


def round_trip(dashboard: dict) -> dict:
    """The dashboard after a round trip through Grafana's own types."""
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafanas_schema_knows_every_field(dashboard):
    assert lost(dashboard, round_trip(dashboard)) == []


def test_a_field_that_grafanas_schema_does_not_know_would_be_found(dashboard):
    wrong = dashboard["panels"][0] | {"titel": "x"}
    assert lost({"panels": [wrong]}, round_trip({"panels": [wrong]})) == [".panels[0].titel"]


def test_every_query_uses_exported_metrics_and_their_labels(queries):
    assert len(queries) > 8
    for query in queries:
        names = re.findall(r"ray_(\w+)", query)
        assert names
        for name in names:
            assert name in GAUGES, query
            tags = set(GAUGES[name][1])
            grouped = re.findall(r"by \(([\w, ]+)\)", query)
            assert {tag for group in grouped for tag in group.split(", ")} <= tags, query
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query)) <= tags, query


def test_every_metric_is_shown(queries):
    assert {name for query in queries for name in re.findall(r"ray_(\w+)", query)} == GAUGES.keys()


def test_panels_do_not_overlap_and_have_their_own_numbers(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        mine = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & mine, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= mine


def test_each_status_has_a_different_colour(dashboard):
    (panel,) = [panel for panel in dashboard["panels"] if panel["title"] == "Trials by status"]
    colours = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"] for override in panel["fieldConfig"]["overrides"]
    }
    assert colours.keys() == set(TrialStatus)
    assert len(set(colours.values())) == len(colours)
