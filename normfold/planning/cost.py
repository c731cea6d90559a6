"""What an affine costs that stays: elements touched, compared without knowing symbolic dimensions."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.crossing import Crossing
from normfold.preparation.shapes import Dims
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import VirtualAffine


class Elements:
    """A sum of products of dimensions, such as ``64·N·H``; symbolic dimensions stand for numbers ≥ 1."""

    def __init__(self) -> None:
        self._terms: Counter[tuple[str, ...]] = Counter()

    def copy(self) -> Elements:
        twin = Elements()
        twin._terms = self._terms.copy()
        return twin

    def __add__(self, other: Elements) -> Elements:
        total = Elements()
        total._terms = self._terms + other._terms
        return total

    def add(self, dims: Dims | None, times: int = 1, *, unknown: str = "?") -> None:
        """Add ``times`` the number of elements of a value. ``unknown`` names what is not known about it."""
        factor, symbols = times, []
        if dims is None:
            symbols.append(unknown)
        else:
            for axis, dim in enumerate(dims):
                if isinstance(dim, int):
                    factor *= dim
                else:
                    symbols.append(dim if dim is not None else f"{unknown}.{axis}")
        self._terms[tuple(sorted(symbols))] += factor

    @property
    def number(self) -> int | None:
        """The count, where no dimension is symbolic."""
        if any(self._terms[key] and key for key in self._terms):
            return None
        return self._terms[()]

    def at_most(self, other: Elements) -> bool:
        return self._paid_by(other) is not None

    def below(self, other: Elements) -> bool:
        """Strictly fewer elements, whatever the symbolic dimensions are."""
        left = self._paid_by(other)
        return left is not None and any(left.values())

    def _paid_by(self, other: Elements) -> Counter[tuple[str, ...]] | None:
        """What of ``other`` is left when each term here is paid with terms there that are at least as
        large."""
        budget = Counter(other._terms)
        for symbols, count in sorted(self._terms.items(), key=lambda item: (-len(item[0]), item[0])):
            needed = count
            for candidate in sorted(budget, key=lambda key: (len(key), key)):
                if needed <= 0:
                    break
                if not Counter(symbols) - Counter(candidate):
                    paid = min(needed, budget[candidate])
                    budget[candidate] -= paid
                    needed -= paid
            if needed > 0:
                return None
        return budget


# Elements that take as long as calling one more node does (docs/decisions/0012).
NODE = 6_000


def is_bias(affine: Affine, value: ir.Value, workspace: Workspace) -> bool:
    """Whether an affine on ``value`` is nothing but the bias of a linear layer spelled MatMul, Add."""
    producer = value.producer()
    return (
        producer is not None
        and producer.op_type == "MatMul"
        and any(workspace.constants.is_constant(v) for v in producer.inputs)
        and not affine.has_scale
        and set(affine.shift_axes) <= {affine.rank - 1}
    )


def passes(affine: Affine, *, from_batchnorm: bool = False, per_channel: bool = False) -> int:
    """Elementwise passes over the value that the affine takes when it is spelled out (docs/decisions/0004).

    One for a scale or a shift alone, or for both in a BatchNormalization; two otherwise.
    """
    if affine.is_identity:
        return 0
    both = affine.has_scale and affine.has_shift
    fits = fits_batchnorm(affine, from_batchnorm=from_batchnorm, per_channel=per_channel)
    return 2 if both and not fits else 1


def fits_batchnorm(affine: Affine, *, from_batchnorm: bool = False, per_channel: bool = False) -> bool:
    """Whether one BatchNormalization says it best: scale and shift per channel, axis 1.

    ``from_batchnorm``: one that was a BatchNormalization stays one, were its constants all equal. So is
    what is ``per_channel``: were it dearer with equal numbers, it would be cheaper once they are rounded.
    On rank 2 the channel axis is the last one too, where Mul and Add are what runtimes look for.
    """
    if affine.rank < 2 or not affine.has_scale:
        return False
    if from_batchnorm:
        return set(affine.axes) <= {1}
    if affine.rank == 2 or not affine.has_shift:
        return False
    return affine.axes == (1,) or (per_channel and not affine.axes)


def is_per_channel(value: ir.Value, workspace: Workspace, *made_of: VirtualAffine) -> bool:
    """Whether what is made of these affines is thought of as varying on ``value``, of so many channels."""
    dims = workspace.dims(value)
    counted = dims is not None and len(dims) > 1 and isinstance(dims[1], int)
    return counted and any(content.varies for content in made_of)


# How many elementwise passes slower it makes the node (docs/decisions/0007).
_SLOWER = {
    ("Relu", "Max"): 1,
    ("Relu", "Min"): 1,
    ("Clip", "Max"): 1,
    ("Clip", "Min"): 1,
    ("LeakyRelu", "PRelu"): 20,
}
_RUN_TOGETHER = frozenset({"Conv", "Gemm"})


# Their constants are read beside the value, so one that grows costs.
_ELEMENTWISE = frozenset({"Add", "Clip", "Div", "Max", "Min", "Mul", "PRelu", "Relu", "Sub", "Sum"})


def charge_edit(cost: Elements, node: ir.Node, crossing: Crossing, workspace: Workspace) -> bool:
    """Add to ``cost`` what an edited node costs more than before. Returns whether it does.

    An activation behind a Conv or Gemm cost nothing before: runtimes run them as one kernel.
    """
    slower = _SLOWER.get((node.op_type, crossing.op_type or ""), 0)
    if slower:
        source, output = node.inputs[0], node.outputs[0]
        fused = source is not None and len(source.uses()) == 1 and _is_fusing(source.producer())
        cost.add(workspace.dims(output), slower + fused, unknown=output.name or "?")
        cost.add((NODE,), fused)
    charged = slower > 0
    for constant in crossing.constants.values() if node.op_type in _ELEMENTWISE else ():
        if sum(size > 1 for size in constant.shape) > 1:
            cost.add(constant.shape)
            charged = True
    return charged


def _is_fusing(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in _RUN_TOGETHER
