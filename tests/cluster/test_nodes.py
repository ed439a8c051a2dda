"""Which node benchmarks run on."""

import random

import pytest

from cluster.nodes import Node, benchmark_node, gpu_nodes, live_nodes
from tasks.errors import ClusterMistake


def described(
    name: str, cpus: float, alive: bool = True, head: bool = False, gpus: float = 0, **labels: str
) -> dict:  # fmt: skip
    resources = {"CPU": cpus, "memory": 1.0, **({"node:__internal_head__": 1.0} if head else {})}
    resources |= {"GPU": gpus} if gpus else {}
    return {"NodeID": name, "NodeManagerAddress": name, "Alive": alive, "Resources": resources, "Labels": labels}


def chosen(*nodes: dict) -> str:
    mixed = list(nodes)
    random.Random(len(nodes)).shuffle(mixed)
    assert benchmark_node(live_nodes(nodes)) == benchmark_node(live_nodes(mixed))
    return benchmark_node(live_nodes(nodes)).id


def test_a_bench_node_comes_before_larger_ones():
    assert chosen(described("a", 64), described("pi", 4, quantsweep="bench"), described("b", 64)) == "pi"


def test_otherwise_it_is_the_one_with_most_cpus_then_without_a_gpu_then_not_the_head_then_the_lowest_address():
    assert chosen(described("a", 2), described("b", 8)) == "b"
    assert chosen(described("a", 8, head=True), described("c", 8), described("b", 8)) == "b"
    assert chosen(described("a", 8, head=True), described("b", 4)) == "a"
    assert chosen(described("a", 8, head=True), described("b", 8, gpus=1)) == "a"
    assert chosen(described("a", 8, gpus=2), described("b", 4)) == "a"


def test_nodes_that_are_dead_or_have_no_cpu_are_no_choice():
    assert chosen(described("a", 2), described("b", 8, alive=False), described("c", 0, quantsweep="bench")) == "a"


def test_a_gpu_is_claimed_where_there_is_one_besides_the_cpus_on_a_node_that_is_not_for_benchmarks_alone():
    nodes = live_nodes(
        [
            described("plain", 8),
            described("small", 1, gpus=1),
            described("large", 4, gpus=2),
            described("dead", 8, alive=False, gpus=4),
            described("bench", 8, gpus=1, quantsweep="bench"),
        ]
    )
    assert [node.gpus for node in nodes] == [0, 1, 2, 1]
    assert [node.id for node in gpu_nodes(nodes, cpus=1)] == ["small", "large"]
    assert [node.id for node in gpu_nodes(nodes, cpus=2)] == ["large"]
    assert not gpu_nodes(nodes, cpus=5)


def test_a_label_of_another_value_is_no_bench():
    assert not live_nodes([described("a", 2, quantsweep="worker")])[0].is_bench


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "no live node with a CPU"),
        ([Node("id", "10.0.0.7", 4, True)], "every node is labelled quantsweep=bench .* choices: join a node without"),
    ],
)
def test_a_cluster_that_can_do_nothing_else_is_refused(nodes, message):
    with pytest.raises(ClusterMistake, match=message):
        benchmark_node(nodes)
