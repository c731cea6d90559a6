"""Spellings that runtimes recognise and run as one kernel: LayerNormalization and Gelu written out.

Taking a constant out of one would save an operator on paper and cost the fused kernel. Measured on
onnxruntime: a text recogniser whose Gelu and LayerNormalization were taken apart ran 7 % slower
(docs/decisions/0005).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from normfold.preparation.graphs import graphs_of
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace


@dataclass
class Idioms:
    """Nodes that belong to idioms.

    Attributes:
        opaque: nothing crosses these, and nothing leaves them.
        anchored: the scale and shift behind a LayerNormalization, and the axis, from the end, that they lie
            on: they take what comes on that axis, and stay.
        norms: each spelled-out normalisation, as the value it ends in and its operator types.
    """

    opaque: set[ir.Node] = field(default_factory=set)
    anchored: dict[ir.Node, int] = field(default_factory=dict)
    norms: list[tuple[ir.Value, tuple[str, ...]]] = field(default_factory=list)


def find_idioms(workspace: Workspace) -> Idioms:
    """The idioms of a model, its subgraphs included."""
    idioms = Idioms()
    for graph in graphs_of(workspace.model):
        for node in graph:
            if node.domain not in ("", "ai.onnx"):
                continue
            if node.op_type == "Div":
                _layer_norm(node, workspace, idioms)
            elif node.op_type in ("Erf", "Tanh"):
                idioms.opaque |= _gelu(node, workspace)
            elif node.op_type == "Sigmoid":
                idioms.opaque |= _quick_gelu(node, workspace)
    return idioms


def _layer_norm(div: ir.Node, workspace: Workspace, idioms: Idioms) -> None:
    """``(x − mean) / √(mean((x − mean)²) + eps)`` over the last axis, then ``· γ + β``."""
    centred, root = (_maker(v) for v in div.inputs)
    if root is not None and root.op_type == "Cast":
        root = _maker(root.inputs[0])
    if not _is(centred, "Sub") or not _is(root, "Sqrt"):
        return
    biased = _maker(root.inputs[0])
    variance = _computed_operand(biased, workspace) if _is(biased, "Add") else None
    squared = _maker(variance.inputs[0]) if _is(variance, "ReduceMean") else None
    mean = _maker(centred.inputs[1])
    if squared is None or squared.op_type not in ("Pow", "Mul") or not _is(mean, "ReduceMean"):
        return
    deviation = _maker(squared.inputs[0])
    if deviation is not None and deviation.op_type == "Cast":
        deviation = _maker(deviation.inputs[0])
    if not _is(deviation, "Sub") or deviation.inputs[0] is not centred.inputs[0]:
        return
    assert biased is not None and variance is not None
    if not all(_over_last_axis(node, workspace) for node in (mean, variance)):
        return
    body = {div, centred, root, biased, variance, squared, mean, deviation}
    if (other_mean := _maker(deviation.inputs[1])) is not None:
        body.add(other_mean)
    idioms.opaque |= body
    end, tail = _affine_tail(div.outputs[0], workspace)
    idioms.anchored |= dict.fromkeys(tail, -1)
    idioms.norms.append((end, tuple(node.op_type for node in (*sorted(body, key=workspace.position), *tail))))


def _affine_tail(value: ir.Value, workspace: Workspace) -> tuple[ir.Value, list[ir.Node]]:
    """The Mul and Add with constants on the last axis that alone read ``value``, one after the other."""
    tail: list[ir.Node] = []
    for op_type in ("Mul", "Add"):
        reader = _only_reader(value)
        if reader is not None and reader.op_type == "Cast":
            reader = _only_reader(reader.outputs[0])
        if reader is None or reader.op_type != op_type:
            break
        if not any(_is_on_last_axis(v, workspace) for v in reader.inputs):
            break
        tail.append(reader)
        value = reader.outputs[0]
    return value, tail


def _is_on_last_axis(value: ir.Value | None, workspace: Workspace) -> bool:
    dims = None if value is None else workspace.dims(value)
    return workspace.constants.is_constant(value) and dims is not None and all(dim == 1 for dim in dims[:-1])


def _gelu(node: ir.Node, workspace: Workspace) -> set[ir.Node]:
    """``0.5 · x · (1 + erf(x / √2))`` and the form with tanh, the half in either place."""
    plus_one = _only_reader(node.outputs[0])
    if not _is(plus_one, "Add") or not _has_constant(plus_one, 1.0, workspace):
        return set()
    product = _only_reader(plus_one.outputs[0])
    if not _is(product, "Mul"):
        return set()
    nodes = {node, plus_one, product}
    other = next((_maker(v) for v in product.inputs if v is not plus_one.outputs[0]), None)
    after = _only_reader(product.outputs[0])
    for half in (other, after):
        if _is(half, "Mul", "Div") and (
            _has_constant(half, 0.5, workspace) or _has_constant(half, 2.0, workspace)
        ):
            nodes.add(half)
    argument = _maker(node.inputs[0])
    if argument is not None:
        nodes.add(argument)
        if node.op_type == "Tanh":
            nodes |= set(_cubic(argument))
    return nodes


def _cubic(scaled: ir.Node) -> Iterator[ir.Node]:
    """``√(2/π) · (x + 0.044715 · x³)`` behind the multiplication by √(2/π)."""
    for total in filter(None, map(_maker, scaled.inputs)):
        if total.op_type != "Add":
            continue
        yield total
        for term in filter(None, map(_maker, total.inputs)):
            if term.op_type == "Mul":
                yield term
                yield from (n for n in map(_maker, term.inputs) if _is(n, "Pow", "Mul"))


def _quick_gelu(node: ir.Node, workspace: Workspace) -> set[ir.Node]:
    """``x · sigmoid(a · x)``."""
    product, scaled = _only_reader(node.outputs[0]), _maker(node.inputs[0])
    if not _is(product, "Mul") or not _is(scaled, "Mul"):
        return set()
    shared = {v for v in scaled.inputs if v is not None} & {v for v in product.inputs if v is not None}
    is_gate = any(not workspace.constants.is_constant(v) for v in shared)
    return {node, product, scaled} if is_gate else set()


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _is(node: ir.Node | None, *op_types: str) -> TypeGuard[ir.Node]:
    return node is not None and node.op_type in op_types and node.domain in ("", "ai.onnx")


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def _computed_operand(node: ir.Node | None, workspace: Workspace) -> ir.Node | None:
    """The node behind the one operand that is not constant."""
    assert node is not None
    computed = [v for v in node.inputs if not workspace.constants.is_constant(v)]
    return _maker(computed[0]) if len(computed) == 1 else None


def _has_constant(node: ir.Node, expected: float, workspace: Workspace) -> bool:
    for value in node.inputs:
        array = workspace.constants.array(value)
        if (
            array is not None
            and array.size == 1
            and np.isclose(float(array.reshape(-1)[0]), expected, rtol=1e-3)
        ):
            return True
    return False


def _over_last_axis(node: ir.Node, workspace: Workspace) -> bool:
    view = NodeView(node, workspace)
    axes = view.ints_attribute("axes") or view.integers(1)
    dims = view.dims(0)
    last = -1 if dims is None else len(dims) - 1
    return axes in ([-1], [last])
