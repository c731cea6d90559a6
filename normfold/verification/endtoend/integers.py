"""Integers that reach what models hold for single ones: rows of a table, numbers to compare with.

Small integers are accepted by most models and read next to nothing of a vocabulary. What two models hold says
which ones to feed: the rows in which their tables differ most, and the numbers that they compare with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from normfold.inputs.drawing import Arrays
from normfold.verification.endtoend.decisions import LAYOUT
from normfold.verification.graph_index import STANDARD_DOMAINS, GraphIndex, literal

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_BLOCK = 4096
"""Rows that are compared at once."""


@dataclass
class _Reach:
    """What an integer input selects in one model.

    Attributes:
        tables: constants whose rows it picks, with the axis.
        sizes: how many there are to pick from, of tables and one-hot codes.
        numbers: constants that it is compared with.
    """

    tables: list[tuple[ir.TensorProtocol, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)


def telling_integers(original: GraphIndex, other: GraphIndex, batch: Arrays) -> Arrays | None:
    """The inputs with other integers where integers select something that differs between the models.

    Args:
        original: the original.
        other: the other model.
        batch: inputs that the original accepts.

    Returns:
        The inputs; ``None`` where no integer selects what differs.
    """
    changed: Arrays = {}
    inputs = {value.name: value for value in other.model.graph.inputs}
    for value in original.model.graph.inputs:
        array = batch.get(value.name or "")
        twin = inputs.get(value.name)
        if array is None or twin is None or array.dtype.kind not in "iu" or not array.size:
            continue
        first, second = _reach(original, value), _reach(other, twin)
        wanted = _wanted(first, second, array.size)
        if wanted:
            room = np.iinfo(array.dtype)
            fitting = [number for number in wanted if room.min <= number <= room.max]
            changed[value.name or ""] = np.resize(np.array(fitting, array.dtype), array.shape)
    return {**batch, **changed} if changed else None


def _wanted(first: _Reach, second: _Reach, count: int) -> list[int]:
    """Integers to feed, the most telling first; none where the models hold the same."""
    size = min([*first.sizes, *second.sizes], default=None)
    rows = _rows_apart(first, second)
    numbers = sorted(first.numbers ^ second.numbers)
    codes = len(first.sizes) > len(first.tables)
    if not (rows or numbers or codes):
        return []
    listed = [*numbers, *rows, *(range(size) if size is not None else (0, 1))]
    return [n for n in dict.fromkeys(listed) if size is None or 0 <= n < size][:count]


def _rows_apart(first: _Reach, second: _Reach) -> list[int]:
    """Rows in which tables of the same shape differ, those that differ most first."""
    apart: np.ndarray | None = None
    for (a, axis), (b, other_axis) in zip(first.tables, second.tables, strict=False):
        if axis != other_axis or a.shape != b.shape:
            continue
        left, right = (np.moveaxis(np.asarray(t.numpy()), axis, 0) for t in (a, b))
        found = np.concatenate(
            [
                np.abs(
                    left[start : start + _BLOCK].astype(np.float64)
                    - right[start : start + _BLOCK].astype(np.float64)
                ).max(axis=tuple(range(1, left.ndim)))
                for start in range(0, len(left), _BLOCK)
            ]
        )
        if apart is None:
            apart = found
        else:
            shared = min(len(apart), len(found))
            apart = np.maximum(apart[:shared], found[:shared])
    if apart is None:
        return []
    return [int(row) for row in np.argsort(-apart, kind="stable") if apart[row] > 0]


def _reach(index: GraphIndex, value: ir.Value) -> _Reach:
    found, pending, seen = _Reach(), [value], {value}
    while pending:
        current = pending.pop()
        for node, slot in _uses(index, current):
            if node.op_type == "Gather" and slot == 1 and node.inputs[0] in index.constants:
                _add_table(found, node)
            elif node.op_type == "OneHot" and slot == 0 and node.inputs[1] is not None:
                depth = literal(node.inputs[1])
                if depth is not None and depth.size == 1:
                    found.sizes.append(int(np.asarray(depth.numpy()).reshape(())))
            elif node.op_type in _COMPARISONS:
                found.numbers.update(_numbers(node.inputs[1 - slot]))
            elif slot == 0 and node.op_type in LAYOUT:
                new = [result for result in node.outputs if result not in seen]
                pending += new
                seen.update(new)
    return found


def _uses(index: GraphIndex, value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Uses in the main graph, in execution order."""
    uses = [(node, slot) for node, slot in value.uses() if index.scope_of.get(node) == ""]
    for node, slot in sorted(uses, key=lambda use: (index.position[use[0]], use[1])):
        if node.domain in STANDARD_DOMAINS:
            yield node, slot


def _add_table(found: _Reach, node: ir.Node) -> None:
    table = node.inputs[0]
    assert table is not None
    tensor, axis = literal(table), node.attributes.get_int("axis", 0)
    if tensor is not None and tensor.shape.rank():
        axis %= tensor.shape.rank()
        found.sizes.append(tensor.shape.numpy()[axis])
        found.tables.append((tensor, axis))


def _numbers(value: ir.Value | None) -> list[int]:
    tensor = None if value is None else literal(value)
    if tensor is None or tensor.size > 16 or not tensor.dtype.is_integer():
        return []
    return [int(number) for number in np.asarray(tensor.numpy()).reshape(-1)]
