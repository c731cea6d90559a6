"""The pictures of sites, from real folds."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import parser

from normfold.folding import fold_model
from normfold.reporting.neighbourhoods import MOST_GRAPHS, site_graphs
from normfold.reporting.report import GraphNode, SiteGraph

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
WEIGHTS = """<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] g = {1.5, -0.5}, float[2] b = {0.25, 1},
 float[2] m = {0.5, 2}, float[2] v = {0.75, 3}, float[2, 1, 1] c = {2, 3}>"""


def pictures(body: str) -> dict[str, SiteGraph]:
    text = f"{HEAD} net (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {WEIGHTS} {{ {body} }}"
    folded = fold_model(ir.from_proto(parser.parse_model(text)))
    return {graph.site: graph for graph in site_graphs(folded.original, folded.model, folded.sites)}


def roles(nodes: tuple[GraphNode, ...]) -> list[tuple[str, str]]:
    return [(node.operator, node.role) for node in nodes]


def test_backward() -> None:
    graph = pictures("q = Conv(x, w)  n = BatchNormalization(q, g, b, m, v)  y = Relu(n)")["n"]
    assert roles(graph.before) == [
        ("input", "input"),
        ("Conv", "changed"),
        ("BatchNormalization", "site"),
        ("Relu", "context"),
    ]
    assert roles(graph.after) == [("input", "input"), ("Conv", "target"), ("Relu", "context")]
    assert [node.inputs for node in graph.before] == [(), ("x",), ("q",), ("n",)]
    assert graph.before[1].constants == ("2×2×1×1",)
    assert graph.after[1].constants == ("2×2×1×1", "2")


def test_forward() -> None:
    graph = pictures("r = Relu(x)  n = BatchNormalization(r, g, b, m, v)  q = Conv(n, w)  y = Relu(q)")["n"]
    assert ("BatchNormalization", "site") in roles(graph.before)
    assert ("Conv", "target") in roles(graph.after)
    assert "BatchNormalization" not in [node.operator for node in graph.after]


def test_chain_of_hand_written_operators() -> None:
    (graph,) = pictures("q = Conv(x, w)  s = Sub(q, c)  t = Mul(s, c)  n = Add(t, c)  y = Relu(n)").values()
    assert [node.operator for node in graph.before if node.role == "site"] == ["Sub", "Mul", "Add"]


def test_kept_site_has_no_after() -> None:
    (graph,) = pictures("r = Sigmoid(x)  n = Mul(r, c)  y = Sigmoid(n)").values()
    assert graph.after == ()
    assert roles(graph.before) == [("Sigmoid", "context"), ("Mul", "site"), ("Sigmoid", "context")]


def test_edges_name_drawn_nodes_only() -> None:
    for graph in pictures(
        "q = Conv(x, w)  n = BatchNormalization(q, g, b, m, v)  s = Sigmoid(n)  y = Mul(n, s)"
    ).values():
        for nodes in (graph.before, graph.after):
            names = {node.value for node in nodes}
            assert all(set(node.inputs) <= names for node in nodes)


def test_is_bounded() -> None:
    count = MOST_GRAPHS + 10
    steps = [f"v{i} = Softplus(n{i - 1})  n{i} = Mul(v{i}, c)" for i in range(1, count)]
    graphs = pictures(" ".join(["n0 = Mul(x, c)", *steps, f"y = Softplus(n{count - 1})"]))
    assert len(graphs) == MOST_GRAPHS
    assert max(len(graph.before) for graph in graphs.values()) <= 16


@pytest.mark.parametrize("readers", [1, 40])
def test_a_value_with_many_readers_stays_small(readers: int) -> None:
    sums = " ".join(f"a{i} = Add(a{i - 1}, n)" for i in range(1, readers))
    graphs = pictures(f"n = Mul(x, c)  a0 = Sigmoid(n)  {sums}  y = Relu(a{readers - 1})")
    assert len(graphs["n"].before) <= 6
