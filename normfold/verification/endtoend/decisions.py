"""Cuts models at operators that decide or saturate, so that what lies behind them can be compared at all.

Rounding may flip an ArgMax, the order of a TopK or a box kept by NonMaxSuppression, and then outputs differ
by much more than rounding. Such outputs are compared by what stands in front of the decision and by what
follows from the original's decision, where both models decide alike. A sigmoid far in its tail is compared in
front of it, where there is a scale to compare on: it moves no more than its input does.

The same operators hide errors: labels and clipped values stay what they are however wrong the scores. So
outputs that agree are compared in front of them as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from normfold.verification.graph_index import STANDARD_DOMAINS, GraphIndex, Key
from normfold.verification.location.matching import computed_alike

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
ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Selu",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "ThresholdedRelu",
    }
)
"""Where all other operands are constants, what comes out may say little of what went in."""

FLOATING_CASTS = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"})
SHAPE_READERS = frozenset({"Shape", "Size"})


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
        The cut; ``None`` where nothing decides or saturates, or where the models share no name there or
        compute something else behind it.
    """
    fed: dict[Key, None] = {}
    compared: dict[Key, None] = {}
    cut_away: list[ir.Node] = []
    for name in outputs:
        fronts, nodes = _fronts(original, ("", name))
        compared.update(dict.fromkeys(fronts))
        cut_away += nodes
    cut = set(compared) != {("", name) for name in outputs}
    for node in _deciders(original, list(compared)):
        cut = True
        cut_away.append(node)
        fed.update((original.keys[v], None) for v in node.outputs if v in original.keys)
        compared.update((original.keys[value], None) for value in _operands(original, node))
    if not cut or not all(_is_shared(original, folded, key) for key in (*fed, *compared)):
        return None
    if not all(_same_in(original, folded, node) for node in cut_away):
        return None
    return Cut(tuple(name for _, name in fed), tuple(key[1] for key in compared if key not in fed))


def find_hidden(
    original: GraphIndex, folded: GraphIndex, outputs: Collection[str], silent: Collection[str]
) -> Cut | None:
    """Finds what to compare besides outputs that agree, because these could hide an error.

    Args:
        original: the original.
        folded: the model to be judged; values of the same name mean the same.
        outputs: outputs that agree; what decisions above them are made on is wanted.
        silent: those of them that rounding hardly moves; what stands in front of saturation is wanted.

    Returns:
        The cut; ``None`` where there is nothing of the kind that both models name.
    """
    compared = {key: None for name in silent for key in _deepest_shared(original, folded, ("", name))}
    fed: dict[Key, None] = {}
    unfed: set[ir.Value] = set()
    varying = _varying(original)
    for node in _deciders(original, [("", name) for name in outputs]):
        operands = [value for value in _operands(original, node) if value in varying]
        results = [original.keys[value] for value in node.outputs if value in original.keys]
        if not operands:
            continue
        if all(_is_shared(original, folded, key) for key in results):
            fed.update(dict.fromkeys(results))
        else:
            unfed.update(node.outputs)
        compared.update((original.keys[value], None) for value in operands)
    unsure = _behind(original, unfed, {original.values[key] for key in fed})
    found = [
        key
        for key in compared
        if key not in fed
        and original.values[key] not in unsure
        and original.values[key].producer() is not None
        and _is_shared(original, folded, key)
    ]
    return Cut(tuple(name for _, name in fed), tuple(name for _, name in found)) if found else None


def _is_shared(original: GraphIndex, folded: GraphIndex, key: Key) -> bool:
    return not key[0] and original.is_shared_name(key) and folded.is_shared_name(key)


def _operands(index: GraphIndex, node: ir.Node) -> list[ir.Value]:
    """What a node reads, constants excepted."""
    return [value for value in index.reads(node) if value in index.keys and value not in index.constants]


def _deciders(index: GraphIndex, keys: Collection[Key]) -> Iterator[ir.Node]:
    """Nodes of the main graph that decide, above the given values."""
    pending, seen = list(keys), set[ir.Node]()
    while pending:
        node = index.producer(pending.pop())
        if node is None or node in seen:
            continue
        seen.add(node)
        if _decides(node):
            yield node
        pending.extend(index.keys[value] for value in _operands(index, node))


def _same_in(original: GraphIndex, folded: GraphIndex, node: ir.Node) -> bool:
    """Whether the other model computes what a node gives from values of the same names in the same way."""
    name = next(value.name for value in node.outputs if value.name)
    twin = folded.values[("", name)].producer() if ("", name) in folded.values else None
    return twin is not None and computed_alike(original, folded, node, twin)


def _fronts(index: GraphIndex, key: Key) -> tuple[list[Key], list[ir.Node]]:
    """What stands in front of the saturating operators that an output comes from, itself without any, and the
    nodes between."""
    pending = [index.values[key]]
    fronts: list[Key] = []
    between: list[ir.Node] = []
    while pending:
        node = pending.pop().producer()
        if node is None or node.domain not in STANDARD_DOMAINS:
            return [key], []
        data = [v for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1]) if v is not None]
        between.append(node)
        if node.op_type in SATURATING and data[0] in index.keys:
            fronts.append(index.keys[data[0]])
        elif node.op_type in LAYOUT and not _decides(node):
            pending.extend(data)
        else:
            return [key], []
    return (fronts, between) if fronts else ([key], [])


def _deepest_shared(original: GraphIndex, folded: GraphIndex, key: Key) -> list[Key]:
    """The furthest values in front of an output that both models name, with nothing but layout, functions of
    single elements and constants between."""
    value, found = original.values[key], list[Key]()
    while (node := value.producer()) is not None and node.domain in STANDARD_DOMAINS:
        if node.op_type not in ELEMENTWISE | LAYOUT | SATURATING or _decides(node):
            break
        data = list(dict.fromkeys(_operands(original, node)))
        if node.op_type == "Concat":
            return [
                deeper
                for part in data
                for deeper in _deepest_shared(original, folded, original.keys[part]) or [original.keys[part]]
            ]
        if len(data) != 1:
            break
        (value,) = data
        if _is_shared(original, folded, original.keys[value]):
            found = [original.keys[value]]
    return found


def _varying(index: GraphIndex) -> set[ir.Value]:
    """Values that depend on the contents of inputs, and not on their shapes alone."""
    varying = {value for value in index.model.graph.inputs if value not in index.constants}
    for node in index.model.graph:
        if node.op_type not in SHAPE_READERS and any(value in varying for value in index.reads(node)):
            varying.update(node.outputs)
    return varying


def _behind(index: GraphIndex, values: Collection[ir.Value], stops: Collection[ir.Value]) -> set[ir.Value]:
    """The values and all that is computed from them, ``stops`` excepted."""
    found = set(values)
    for node in index.model.graph if found else ():
        if any(value in found for value in index.reads(node)):
            found.update(value for value in node.outputs if value not in stops)
    return found


def _decides(node: ir.Node) -> bool:
    if node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type == "Cast":
        source = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
        target = ir.DataType(node.attributes["to"].as_int())
        known = source is not None and source.name not in FLOATING_CASTS
        return not known and target.name not in FLOATING_CASTS
    return node.op_type in DECIDING


def saturates(index: GraphIndex, output: str) -> bool:
    """Whether an output comes out of saturating operators, so that its natural scale is one."""
    return _fronts(index, ("", output))[0] != [("", output)]


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
