"""Connecting to a cluster."""

import pytest

from cluster.connect import connect
from cluster.inprocess import InProcessExecutor
from tasks.errors import ClusterMistake


def test_the_in_process_twin_needs_no_ray():
    assert isinstance(connect("in-process"), InProcessExecutor)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere:port"])
def test_an_address_without_a_cluster_is_refused_at_once_with_the_choices(address):
    with pytest.raises(ClusterMistake, match="choices for --address: local, in-process, auto"):
        connect(address)
