"""A cluster for the tests that break none of it."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Cluster


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    """A cluster without nodes yet; every process of it ends with the test."""
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()
