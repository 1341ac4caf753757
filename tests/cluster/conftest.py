"""One Ray cluster for all tests of a module, because each start takes seconds."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A head with two cores. All of its processes, and those of nodes that tests add, end after the module's tests."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start("head", "--num-cpus=2")
        yield cluster
    finally:
        cluster.close()
