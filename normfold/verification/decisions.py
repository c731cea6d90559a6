"""Cuts models at operators that decide or saturate, so that what lies behind them can be compared at all.

Rounding may flip an ArgMax, the order of a TopK or a box kept by NonMaxSuppression, and then outputs differ
by much more than rounding. Such outputs are compared by what stands in front of the decision and by what
follows from the original's decision. A sigmoid far in its tail is compared in front of it, where there is a
scale to compare on: it moves no more than its input does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from normfold.verification.graph_index import STANDARD_DOMAINS, GraphIndex, Key

DECIDING = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "Ceil",
        "DynamicQuantizeLinear",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "Less",
        "LessOrEqual",
        "NonMaxSuppression",
        "QuantizeLinear",
        "Round",
        "Sign",
        "TopK",
        "Unique",
    }
)
SATURATING = frozenset({"Sigmoid", "Softmax", "Tanh", "HardSigmoid"})
LAYOUT = frozenset(
    {
        "Identity",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Concat",
        "Cast",
    }
)
FLOATING_CASTS = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"})


@dataclass(frozen=True)
class Cut:
    """Where to cut.

    Attributes:
        fed: values behind decisions, to be the original's in both models.
        outputs: values to compare instead of the outputs in question.
    """

    fed: tuple[str, ...]
    outputs: tuple[str, ...]


def find_cut(original: GraphIndex, folded: GraphIndex, outputs: Collection[str]) -> Cut | None:
    """Finds where to compare outputs that differ.

    Args:
        original: the original.
        folded: the model to be judged; values of the same name mean the same.
        outputs: the outputs in question.

    Returns:
        The cut; ``None`` where nothing decides or saturates, or where the models share no name there.
    """
    fed: dict[Key, None] = {}
    compared: dict[Key, None] = {}
    pending = []
    for name in outputs:
        fronts = _fronts(original, ("", name))
        compared.update(dict.fromkeys(fronts))
        pending.extend(fronts)
    cut = set(compared) != {("", name) for name in outputs}
    seen: set[ir.Node] = set()
    while pending:
        node = original.producer(pending.pop())
        if node is None or node in seen:
            continue
        seen.add(node)
        known = [value for value in original.reads(node) if value in original.keys]
        reads = [original.keys[value] for value in known if value not in original.constants]
        if _decides(node):
            cut = True
            fed.update((original.keys[v], None) for v in node.outputs if v in original.keys)
            compared.update((key, None) for key in reads)
        pending.extend(reads)
    shared = all(
        not key[0] and original.is_shared_name(key) and folded.is_shared_name(key)
        for key in (*fed, *compared)
    )
    if not cut or not shared:
        return None
    return Cut(tuple(name for _, name in fed), tuple(key[1] for key in compared if key not in fed))


def _fronts(index: GraphIndex, key: Key) -> list[Key]:
    """What stands in front of the saturating operators that an output comes from, itself without any."""
    pending = [index.values[key]]
    fronts: list[Key] = []
    while pending:
        node = pending.pop().producer()
        if node is None or node.domain not in STANDARD_DOMAINS:
            return [key]
        data = [v for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1]) if v is not None]
        if node.op_type in SATURATING and data[0] in index.keys:
            fronts.append(index.keys[data[0]])
        elif node.op_type in LAYOUT and not _decides(node):
            pending.extend(data)
        else:
            return [key]
    return fronts or [key]


def _decides(node: ir.Node) -> bool:
    if node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type == "Cast":
        source = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
        target = ir.DataType(node.attributes["to"].as_int())
        return source is not None and source.name in FLOATING_CASTS and target.name not in FLOATING_CASTS
    return node.op_type in DECIDING


def saturates(index: GraphIndex, output: str) -> bool:
    """Whether an output comes out of saturating operators, so that its natural scale is one."""
    return _fronts(index, ("", output)) != [("", output)]


def cut_model(model: ir.Model, cut: Cut, fed: Mapping[str, np.ndarray]) -> ir.Model:
    """A copy of the model with inputs in place of decided values, and the cut's outputs.

    Args:
        model: the model; not changed.
        cut: where to cut.
        fed: example contents of the decided values, for their types and ranks.
    """
    copy = model.clone()
    values = GraphIndex(copy).values
    results = [values[("", name)] for name in cut.outputs]
    for name in cut.fed:
        old = values[("", name)]
        array = fed[name]
        new = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape([f"{name}.{axis}" for axis in range(array.ndim)]),
        )
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = f"{name}~decided"
        copy.graph.inputs.append(new)
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(results)
    RemoveUnusedNodesPass()(copy)
    return copy


def tapped(model: ir.Model, names: Collection[str]) -> ir.Model:
    """A copy of the model with the named values of its main graph as its outputs."""
    copy = model.clone()
    values = GraphIndex(copy).values
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[("", name)] for name in names)
    return copy
