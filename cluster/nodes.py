"""Nodes of a cluster: which of them benchmarks run on, and which take everything else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.errors import ClusterMistake

HEAD = "node:__internal_head__"
"""The resource by which Ray marks its head node."""

BENCH_LABEL = ("quantsweep", "bench")
"""Key and value of the label of nodes that take benchmarks alone: `ray start --labels=quantsweep=bench`."""


@dataclass(frozen=True)
class Node:
    """A live node that has CPUs."""

    id: str
    """Ray's id of the node."""

    address: str
    """Its IP address."""

    cpus: int
    """CPUs that Ray hands out there."""

    is_bench: bool
    """Whether it is labelled to take benchmarks alone."""

    is_head: bool = False
    """Whether Ray's own services, and mostly the driver, run there too."""

    gpus: int = 0
    """GPUs that Ray hands out there."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.address} ({self.id[:8]}, {self.cpus} CPUs{', labelled bench' if self.is_bench else ''})"


def live_nodes(described: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Reads what Ray says about its nodes.

    Args:
        described: What `ray.nodes()` returned.

    Returns:
        The live ones with at least one CPU.
    """
    key, value = BENCH_LABEL
    found = [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            (node.get("Labels") or {}).get(key) == value,
            HEAD in node["Resources"],
            int(node["Resources"].get("GPU", 0)),
        )
        for node in described
        if node["Alive"]
    ]
    return [node for node in found if node.cpus > 0]


def benchmark_node(nodes: Sequence[Node]) -> Node:
    """Chooses the one node that all benchmarks of a run share, so that their latencies can be ranked.

    Args:
        nodes: The live nodes.

    Returns:
        A node labelled bench before others, then the one with most CPUs, then one without a GPU, which trainings
        want, then another than the head, then the lowest address.

    Raises:
        ClusterMistake: If there is no node, or none that takes other tasks.
    """
    if not nodes:
        raise ClusterMistake("the cluster has no live node with a CPU; choices: start one with `ray start`")
    if all(node.is_bench for node in nodes):
        label = "=".join(BENCH_LABEL)
        raise ClusterMistake(
            f"every node is labelled {label} and takes benchmarks alone: {', '.join(node.name for node in nodes)}; "
            "choices: join a node without the label, or leave the label away"
        )
    return min(
        nodes, key=lambda node: (not node.is_bench, -node.cpus, node.gpus > 0, node.is_head, node.address, node.id)
    )


def gpu_nodes(nodes: Sequence[Node], cpus: int) -> list[Node]:
    """Finds where a task may claim a GPU.

    Args:
        nodes: The live nodes.
        cpus: CPUs that it claims besides.

    Returns:
        Those with a GPU and so many CPUs, none of them labelled bench; a task claims none if there is none.
    """
    return [node for node in nodes if node.gpus >= 1 and node.cpus >= cpus and not node.is_bench]
