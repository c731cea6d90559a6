"""Normalisations written out: ``(x − mean) / √(var + eps)``, or with epsilon outside of the root."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.consistency.static.epsilon import judge_epsilon
from normfold.consistency.static.subject import Subject, is_op, maker
from normfold.preparation.node_view import NodeView
from normfold.reporting.report import Finding

_MEANS = ("ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool")
_BETWEEN = ("Mul", "Div", "Reshape", "Unsqueeze", "Squeeze", "Cast", "Identity", "Expand", "Sub", "Add")
_DEEPEST = 6
_LARGEST_INITIAL = float(np.sqrt(1 + 1e-2))


@dataclass(frozen=True)
class _Spelled:
    """One written-out normalisation.

    Attributes:
        node: where the deviation is divided.
        centred: the ``x − mean``.
        epsilon: what is added.
        outside: whether it is added to the standard deviation.
    """

    node: ir.Node
    centred: ir.Node
    epsilon: float
    outside: bool


def written_out(subject: Subject) -> Iterator[Finding]:
    """NF317; NF301 and NF307 where the form is spelled in arithmetic."""
    for found in _spelled(subject):
        site = found.node.outputs[0].name or ""
        if found.outside:
            yield Finding(
                "NF317",
                "info",
                f"{site}: divides by the standard deviation + {found.epsilon:.6g}; epsilon stands outside "
                "the square root",
                site,
            )
        yield from judge_epsilon(float(np.float32(found.epsilon)), site, None)
        if _is_over_batch(found.centred, subject):
            yield Finding(
                "NF301",
                "error",
                f"{site}: a written-out normalisation takes its mean over the batch axis: it normalises "
                "with the batch",
                site,
            )


@dataclass(frozen=True)
class WrittenLayer:
    """``(x − mean) / deviation`` with constants.

    Attributes:
        site: name of the quotient.
        channels: number of means.
        initial: whether mean and deviation are those of mean 0, variance 1 and a small epsilon.
    """

    site: str
    channels: int
    initial: bool


def written_layers(subject: Subject) -> Iterator[WrittenLayer]:
    """Hand-written normalisations with running statistics."""
    for node in subject.nodes("Div"):
        centred = _behind_scale(node.inputs[0], subject)
        if not is_op(centred, "Sub") or subject.workspace.constants.is_constant(centred.inputs[0]):
            continue
        mean, deviation = subject.array(centred.inputs[1]), subject.array(node.inputs[1])
        if mean is None or deviation is None or mean.size < 2 or mean.size != deviation.size:
            continue
        # A deviation of exactly 1 would be no √(1 + epsilon), but scaling that somebody left in.
        initial = not mean.any() and bool(((deviation > 1) & (deviation < _LARGEST_INITIAL)).all())
        yield WrittenLayer(node.outputs[0].name or "", mean.size, initial)


def _spelled(subject: Subject) -> Iterator[_Spelled]:
    for node in subject.nodes("Div", "Mul"):
        if len(node.inputs) != 2 or subject.workspace.constants.is_constant(node.outputs[0]):
            continue
        for slot in (0,) if node.op_type == "Div" else (0, 1):
            centred, divisor = _behind_scale(node.inputs[slot], subject), maker(node.inputs[1 - slot])
            if node.op_type == "Mul":
                divisor = maker(divisor.inputs[0]) if is_op(divisor, "Reciprocal") else None
            if not is_op(centred, "Sub") or not _is_mean(centred.inputs[1], subject):
                continue
            found = _epsilon(divisor, subject)
            if found is not None:
                yield _Spelled(node, centred, *found)


def _behind_scale(value: ir.Value | None, subject: Subject) -> ir.Node | None:
    """The node that makes ``x − mean``, through a multiplication by a constant scale."""
    node = maker(value)
    if is_op(node, "Mul"):
        rest = [v for v in node.inputs if not subject.workspace.constants.is_constant(v)]
        return maker(rest[0]) if len(rest) == 1 else None
    return node


def _epsilon(divisor: ir.Node | None, subject: Subject) -> tuple[float, bool] | None:
    """The epsilon of ``√(var + eps)`` or ``√var + eps``, and whether it stands outside the root."""
    divisor = _through(divisor, "Cast", "Identity", "Unsqueeze", "Reshape")
    if is_op(divisor, "Add"):
        epsilon, root = _split(divisor, subject)
        root = _through(root, "Cast", "Identity", "Unsqueeze", "Reshape")
        if epsilon is None or not is_op(root, "Sqrt", "ReduceL2"):
            return None
        inside = root.inputs[0] if root.op_type == "Sqrt" else root.outputs[0]
        return (epsilon, True) if _is_mean(inside, subject) else None
    if is_op(divisor, "Sqrt"):
        total = maker(divisor.inputs[0])
        if not is_op(total, "Add"):
            return None
        epsilon, variance = _split(total, subject)
        known = variance is None or _is_mean(variance.outputs[0], subject)
        return (epsilon, False) if epsilon is not None and known else None
    return None


def _split(node: ir.Node, subject: Subject) -> tuple[float | None, ir.Node | None]:
    """A small positive scalar of a sum, and what makes the other operand."""
    for slot in (1, 0):
        value = subject.scalar(node.inputs[slot])
        if value is not None and 0 < value < 10:
            return value, maker(node.inputs[1 - slot])
    return None, None


def _through(node: ir.Node | None, *op_types: str) -> ir.Node | None:
    while is_op(node, *op_types):
        node = maker(node.inputs[0])
    return node


def _is_mean(value: ir.Value | None, subject: Subject) -> bool:
    """Whether a value is a statistic: a constant of more than one element, or an average over axes."""
    if value is None:
        return False
    array = subject.array(value)
    if array is not None:
        return array.size > 1
    for _ in range(_DEEPEST):
        node = maker(value)
        if is_op(node, *_MEANS):
            return True
        if not is_op(node, *_BETWEEN):
            return False
        rest = [
            v for v in node.inputs[:2] if v is not None and not subject.workspace.constants.is_constant(v)
        ]
        value = rest[0] if rest else None
    return False


def _is_over_batch(centred: ir.Node, subject: Subject) -> bool:
    """Whether the mean of ``x`` is taken over every axis but the channel's, the batch's among them.

    Below rank 3 the leading axis may as well be time, as in the normalisation of audio features.
    """
    x, mean = centred.inputs[0], maker(centred.inputs[1])
    dims = subject.dims(x)
    if not is_op(mean, "ReduceMean") or mean.inputs[0] is not x or dims is None or len(dims) < 3:
        return False
    view = NodeView(mean, subject.workspace)
    axes = view.ints_attribute("axes") or view.integers(1)
    if axes is None:
        return False
    reduced = {axis % len(dims) for axis in axes}
    return dims[0] != 1 and reduced in ({*range(len(dims))} - {1}, {*range(len(dims) - 1)})
