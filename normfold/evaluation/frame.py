"""The values alive while one graph is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from normfold.evaluation.dtypes import Array, cast_like, is_floating, promote
from normfold.evaluation.schedule import Request


@dataclass(frozen=True)
class Alterations:
    """What nodes of the main graph find instead of what the model says; the model stays as it is.

    Attributes:
        operands: arrays by node and input slot.
        attributes: attributes by node; those not named stay.
    """

    operands: Mapping[tuple[ir.Node, int], Array] = field(default_factory=dict)
    attributes: Mapping[ir.Node, Mapping[str, ir.Attr]] = field(default_factory=dict)


UNALTERED = Alterations()

Watch = Mapping[ir.Node, Callable[[Array], None]]
"""What is called with the first operand of a node whenever it is about to be evaluated in double."""

UNWATCHED: Watch = {}


class Frame:
    """The values alive in one graph or function body, and the scope around it."""

    def __init__(
        self,
        graph: ir.Graph | ir.Function,
        opsets: Mapping[str, int],
        load: Callable[[ir.Value, bool], Any],
        outer: Frame | None = None,
        bindings: Mapping[str, ir.Attr] | None = None,
        *,
        values: Mapping[Request, Any] | None = None,
        altered: Alterations = UNALTERED,
        watch: Watch = UNWATCHED,
    ) -> None:
        self.graph = graph
        self.opsets = opsets
        self.bindings = bindings
        self.altered = altered
        self.watch = watch
        self.values: dict[Request, Any] = dict(values or {})
        self._load = load
        self._outer = outer

    def store(self, value: ir.Value, native: bool, content: Any) -> None:
        self.values[value, native] = content

    def release(self, values: Sequence[ir.Value]) -> None:
        for value in values:
            self.values.pop((value, True), None)
            self.values.pop((value, False), None)

    def get(self, value: ir.Value, native: bool) -> Any:
        """The value in a precision; from the other one where only that is there.

        Raises:
            KeyError: if nothing provides it.
        """
        if (value, native) in self.values:
            return self.values[value, native]
        # An initializer in double need not be the one in its own type: a fold has it exact, before rounding.
        if (value, not native) in self.values and not value.is_initializer():
            other = self.values[value, not native]
            content = demote(other, value) if native else promote(other)
        elif self._outer is not None and value.graph is not self.graph:
            return self._outer.get(value, native)
        elif value.is_initializer() and value.const_value is not None:
            content = self._load(value, native)
        else:
            raise KeyError(value.name)
        self.values[value, native] = content
        return content


def demote(content: Any, value: ir.Value) -> Any:
    """A floating tensor in the type that the graph declares for it; anything else as it is."""
    if value.dtype is None:
        return content
    dtype = value.dtype.numpy()
    return cast_like(content, dtype) if is_floating(dtype) else content
