"""One sandbox for all end-to-end tests of a session."""

from collections.abc import Iterator

import pytest
from support.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running
