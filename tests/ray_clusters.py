"""Clusters of Ray on this machine, for tests."""

from __future__ import annotations

from typing import Any


def cluster_of_two(**second: Any) -> tuple[Any, Any]:
    """Return a cluster of two nodes, the first of one core, and its second node.

    Ray waits 30 seconds for the processes of a node, which a loaded machine can miss; three attempts are made.
    """
    from ray.cluster_utils import Cluster

    for attempt in range(3):
        cluster = Cluster(initialize_head=False)
        try:
            cluster.add_node(num_cpus=1, include_dashboard=False)
            node = cluster.add_node(**second)
            cluster.wait_for_nodes()
        except Exception:
            cluster.shutdown()
            if attempt == 2:
                raise
        else:
            return cluster, node
    raise AssertionError
