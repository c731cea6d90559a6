"""Reads nodes, one after the other, as arithmetic over one base value."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import sizes
from normfold.preparation.sizes import Size
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm.counts import Counts
from normfold.recognition.groupnorm.frame import Laid, NotRead, base_view, repeats, sizes_of_view, uncut
from normfold.recognition.groupnorm.terms import Expression, Monomial, Statistics, product, total

Reading = Callable[[NodeView, "Reader"], Expression]
"""How one operator is read; raises ``NotRead`` where it is not arithmetic that is understood here."""

_BASE: Monomial = (1, 0, 0, ())


class Reader:
    """What is known of the values that are computed from one base value.

    Attributes:
        known: the values read so far.
        statistics: mean and roots that they share.
        aliases: sizes of axes by the names that shape inference has for them, where it does not see their
            origin.
    """

    def __init__(self, base: ir.Value, workspace: Workspace) -> None:
        dims = workspace.dims(base)
        if dims is None or 0 in dims:
            raise NotRead("its rank is not known")
        self.workspace = workspace
        self.base = base
        self.view = base_view(sizes(base, dims))
        self.statistics = Statistics()
        self.known: dict[ir.Value, Expression] = {base: Expression(self.view, {_BASE: Laid.number(1.0)})}
        self.aliases: dict[Hashable, Size] = {}
        self._counts = Counts(workspace, self.statistics, self.aliases)
        self._own = {symbol for size in sizes_of_view(self.view) for symbol in size.symbols}

    def note(self, value: ir.Value, expression: Expression) -> None:
        """Remember what a value is."""
        self.known[value] = expression
        dims = self.workspace.dims(value) or (None,) * len(expression.view)
        for name, size in zip(sizes(value, dims), sizes_of_view(expression.view), strict=True):
            # What the base value's own sizes are called stays.
            if name.number is None and name.symbols.isdisjoint(self._own):
                ((symbol, _),) = name.symbols
                self.aliases[symbol] = size

    def resolved(self, size: Size) -> Size:
        """A size in terms of those of the base value, as far as they are known."""
        return size.resolved(self.aliases)

    def expression(self, node: NodeView, slot: int) -> Expression:
        """The sum that an operand is."""
        found = self.any_form(node, slot)
        if found.form != "sum":
            raise NotRead("an activation comes first")
        return found

    def any_form(self, node: NodeView, slot: int) -> Expression:
        value = node.value(slot)
        found = None if value is None else self.known.get(value)
        if found is None:
            raise NotRead("an operand is not computed from the same value")
        if repeats(found.view):
            raise NotRead("two of its axes are the same")
        return found

    def operand(self, node: NodeView, slot: int) -> Expression | Array64:
        """An operand: a sum, the values of a constant, or a number computed from sizes."""
        value = node.value(slot)
        if value is not None and value in self.known:
            return self.expression(node, slot)
        if value is not None and not node.is_constant(slot):
            return Expression((), self._counts.read(node, slot))
        return self.constant(node, slot)

    def parameter(self, node: NodeView, slot: int) -> Array64:
        """A constant, or one number spread over a shape that is not static."""
        maker = None if node.is_constant(slot) else node.producer(slot)
        if maker is not None and maker.node.domain in ("", "ai.onnx") and maker.op_type == "Expand":
            array = self.constant(maker, 0)
            if array.size == 1:
                return array.reshape(())
        return self.constant(node, slot)

    def constant(self, node: NodeView, slot: int) -> Array64:
        array = node.array(slot)
        if array is None or array.dtype != np.float64 or not np.isfinite(array).all():
            raise NotRead("an operand is computed at run time")
        return array

    def averaged(self, expression: Expression, axes: set[int]) -> dict[Monomial, Laid]:
        """The terms of the mean over axes of the expression's view."""
        over = uncut(piece for axis in axes for piece in expression.view[axis])
        return self.statistics.mean(expression, over)

    def standardised(
        self, expression: Expression, axes: set[int], epsilon: float, *, centred: bool = True
    ) -> Expression:
        """``(v − mean(v)) / √(var(v) + epsilon)``, or ``v / √(mean(v²) + epsilon)``."""
        terms = expression.terms
        if centred:
            terms = total(terms, self.averaged(expression, axes), -1.0)
        deviation = expression.computed(product(terms, terms))
        radicand = total(self.averaged(deviation, axes), {(0, 0, 0, ()): Laid.number(epsilon)})
        root = self.statistics.root(expression.computed(radicand))
        return expression.computed(product(terms, self.statistics.inverse({root: Laid.number(1.0)})))


def with_affine(expression: Expression, scale: Array64, shift: Array64) -> Expression:
    """``scale ⊙ v + shift`` for constants that broadcast against the value."""
    gamma, view = Laid.over(expression.view, scale)
    beta, view = Laid.over(view, shift)
    terms = product(expression.terms, {(0, 0, 0, ()): gamma})
    if shift.any():
        terms = total(terms, {(0, 0, 0, ()): beta})
    return Expression(view, terms)
