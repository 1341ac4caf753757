"""What the markers mean, so that `pytest -m "not ray and not cluster and not browser"` stays fast.

A test that starts Ray without the marker `ray` or `cluster` fails. Tests marked `slow` run where no markers are selected, as in the whole
suite, and where the selection names `slow`.
"""

from pathlib import Path

import pytest

FIXTURES_WITH_RAY = {"smoke_run", "untouched", "cluster"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    selection = config.option.markexpr
    if selection and "slow" not in selection:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def is_marked(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("ray", "cluster"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if FIXTURES_WITH_RAY & set(item.fixturenames) and not is_marked(item):
        pytest.fail("this test starts Ray: mark it with @pytest.mark.ray", pytrace=False)


@pytest.fixture(autouse=True)
def _only_marked_tests_start_ray(request, monkeypatch) -> None:
    if not is_marked(request.node):
        # Ray creates its folders there. Below a file that fails, in this process and in those that the test starts.
        monkeypatch.setenv("RAY_TMPDIR", str(Path(__file__) / "mark this test with pytest.mark.ray"))
