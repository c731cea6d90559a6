"""Transposes between neighbours that both work with the channels last undo each other, and go."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from normfold.preparation.workspace import Workspace

_POINTWISE = frozenset(
    {"Abs", "Cast", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"}
    | {"Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"}
)


def cancel_transposes(candidates: Iterable[ir.Node], workspace: Workspace) -> None:
    """Remove each Transpose of ``candidates`` that undoes an earlier one with nothing but pointwise operators
    between, which then work on the other layout and give it under a new name."""
    for node in candidates:
        if node.op_type != "Transpose" or node.graph is None or node.outputs[0].is_graph_output():
            continue
        between, first = _pointwise_behind(node)
        if first is None or not _are_inverse(first, node):
            continue
        source, result = first.inputs[0], node.inputs[0]
        assert source is not None and result is not None
        if between:
            between[-1].replace_input_with(0, source)
            for inner in between:
                _relabel(inner.outputs[0], source, workspace)
        else:
            result = source
        node.outputs[0].replace_all_uses_with(result)
        node.graph.remove(node, safe=True)
        if not first.outputs[0].uses() and not first.outputs[0].is_graph_output():
            assert first.graph is not None
            first.graph.remove(first, safe=True)


def _pointwise_behind(node: ir.Node) -> tuple[list[ir.Node], ir.Node | None]:
    """The pointwise nodes in front of a Transpose, the nearest first, and the Transpose in front of them."""
    between: list[ir.Node] = []
    value = node.inputs[0]
    while value is not None and (maker := value.producer()) is not None and maker.graph is node.graph:
        if maker.domain not in ("", "ai.onnx"):
            break
        if maker.op_type == "Transpose":
            return between, maker
        if maker.op_type not in _POINTWISE or len(value.uses()) != 1 or value.is_graph_output():
            break
        between.append(maker)
        value = maker.inputs[0]
    return between, None


def _are_inverse(first: ir.Node, second: ir.Node) -> bool:
    orders = [tuple(node.attributes.get_ints("perm", ())) for node in (first, second)]
    return len(orders[0]) == len(orders[1]) > 0 and all(
        orders[0][axis] == place for place, axis in enumerate(orders[1])
    )


def _relabel(value: ir.Value, like: ir.Value, workspace: Workspace) -> None:
    """A value that means something else needs a name of its own."""
    dtype = workspace.shapes.dtype(value)
    value.name = workspace.fresh_name(f"{value.name}_channels_last")
    value.shape = None
    workspace.shapes.set(value, workspace.dims(like), dtype)
