"""One cluster for all tests on real nodes: each start costs seconds."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A head with two cores; every process of it, and of nodes that tests add, ends with the module's tests."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start("head", "--num-cpus=2")
        yield made
    finally:
        made.close()
