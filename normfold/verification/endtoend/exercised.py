"""Constants that differ between two models of the same operators, and whether any input lets them show.

An output that agrees says nothing of a weight that no input reaches: a row of a table, a threshold, a dead
channel. Where few constants differ, the original is run with each difference in its turn, enlarged to the
size of the constant itself unless a decision is made on it. Where that moves no output by a single bit,
nothing has compared that constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.inputs.drawing import Arrays, is_floating, machine_epsilon
from normfold.verification.endtoend.decisions import DECIDING, SHAPE_READERS
from normfold.verification.graph_index import GraphIndex, first_output, literal

MOST_CONSTANTS = 4
"""Of more, the models differ as a whole, and each takes a run of its own."""

_ROUNDING = 16.0
"""Machine epsilons of its largest element up to which a constant is the same."""


@dataclass(frozen=True)
class Difference:
    """A constant operand that differs.

    Attributes:
        node: place of its reader in the main graph.
        slot: which operand of it.
        name: of the reader's result.
        content: what to run the original with.
    """

    node: int
    slot: int
    name: str
    content: np.ndarray


def unexercised(
    original: GraphIndex, other: GraphIndex, run: Callable[[ir.Model], list[Arrays] | None]
) -> list[str]:
    """Names what reads a constant that differs and that moves no output.

    Args:
        original: the original.
        other: the other model.
        run: the outputs of a model on the inputs of the comparison; ``None`` where it does not run.
    """
    found = differences(original, other)
    base = run(original.model) if found else None
    if base is None:
        return []
    silent = []
    for difference in found:
        changed = run(with_difference(original.model, difference))
        if changed is not None and _same(base, changed):
            silent.append(difference.name)
    return silent


def differences(original: GraphIndex, other: GraphIndex) -> list[Difference]:
    """Finds floating-point constants on the way to an output that differ by more than rounding.

    Returns:
        Those of the main graphs; none where the main graphs are not of the same operators, or more than
        ``MOST_CONSTANTS`` differ.
    """
    first, second = list(original.model.graph), list(other.model.graph)
    if [_kind(node) for node in first] != [_kind(node) for node in second]:
        return []
    alive = _alive(original)
    found: dict[ir.Value, Difference] = {}
    for place, (left, right) in enumerate(zip(first, second, strict=True)):
        for slot, (a, b) in enumerate(zip(left.inputs, right.inputs, strict=True)):
            if a is None or b is None or left not in alive or a in found:
                continue
            if a not in original.constants or b not in other.constants or left.op_type in SHAPE_READERS:
                continue
            content = _changed(literal(a), literal(b), enlarge=left.op_type not in DECIDING)
            if content is not None:
                found[a] = Difference(place, slot, first_output(left) or "", content)
                if len(found) > MOST_CONSTANTS:
                    return []
    return list(found.values())


def with_difference(model: ir.Model, difference: Difference) -> ir.Model:
    """A copy of the original with another constant, for every reader of it."""
    copy = model.clone()
    node = next(node for place, node in enumerate(copy.graph) if place == difference.node)
    old = node.inputs[difference.slot]
    assert old is not None
    taken = {value.name for value in GraphIndex(copy).keys}
    name = f"{old.name}~"
    while name in taken:
        name += "~"
    new = ir.Value(
        name=name,
        const_value=ir.tensor(difference.content, name=name),
        shape=ir.Shape(difference.content.shape),
        type=old.type,
    )
    copy.graph.register_initializer(new)
    old.replace_all_uses_with(new)
    return copy


def _kind(node: ir.Node) -> tuple[object, ...]:
    return node.op_identifier(), len(node.inputs), len(node.outputs)


def _alive(index: GraphIndex) -> set[ir.Node]:
    """Nodes of the main graph that an output comes from."""
    pending, found = list(_producers(index.model.graph.outputs)), set[ir.Node]()
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(_producers(index.reads(node)))
    return found


def _producers(values: Iterable[ir.Value]) -> Iterator[ir.Node]:
    for value in values:
        if (node := value.producer()) is not None:
            yield node


def _changed(a: ir.TensorProtocol | None, b: ir.TensorProtocol | None, *, enlarge: bool) -> np.ndarray | None:
    """The first with its difference from the second, as large as its largest element if it is to be enlarged;
    ``None`` where they are the same, or nothing to compare."""
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape or not a.size:
        return None
    x, y = np.asarray(a.numpy()), np.asarray(b.numpy())
    if not is_floating(x.dtype) or np.array_equal(x, y):
        return None
    wide = x.astype(np.float64)
    apart = y.astype(np.float64) - wide
    largest, peak = float(np.abs(apart).max()), float(np.abs(wide).max())
    if not np.isfinite(largest) or largest <= _ROUNDING * machine_epsilon(x.dtype) * peak:
        return None
    factor = max(1.0, (peak or 1.0) / largest) if enlarge else 1.0
    return np.asarray((wide + apart * factor).astype(x.dtype))


def _same(first: Sequence[Arrays], second: Sequence[Arrays]) -> bool:
    """Whether two models gave the same, bit for bit."""
    return all(
        np.array_equal(array, other[name], equal_nan=array.dtype.kind == "f")
        for run, other in zip(first, second, strict=True)
        for name, array in run.items()
    )
