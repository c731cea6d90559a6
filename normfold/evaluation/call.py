"""One node with concrete operands: what every kernel receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.evaluation.dtypes import Array
from normfold.evaluation.errors import EvaluationFailed, NotCovered

Kernel = Callable[["NodeCall"], Sequence[Any]]


_UNROUNDED = "normfold.unrounded"


def unrounded(name: str, value: float) -> ir.Attr:
    """A float attribute that a fold has computed: like a weight before its rounding, it counts unrounded."""
    attribute = ir.AttrFloat32(name, value)
    attribute.meta[_UNROUNDED] = True
    return attribute


@dataclass(frozen=True, slots=True)
class NodeCall:
    """A node's operator, resolved attributes and operands.

    Attributes:
        op_type: operator type.
        domain: its domain, ``""`` for ONNX's own.
        version: the opset version in force.
        inputs: operands; ``None`` for an omitted optional one. Tensors are arrays, sequences lists.
        attributes: attributes by name, references to function attributes already resolved.
        wanted: per output, whether the node names it.
        double: whether floating results are float64.
    """

    op_type: str
    domain: str
    version: int
    inputs: tuple[Any, ...]
    attributes: Mapping[str, ir.Attr]
    wanted: tuple[bool, ...]
    double: bool

    def refuse(self, reason: str) -> NotCovered:
        """The error to raise for a case that the kernel does not compute."""
        return NotCovered(self.op_type, self.domain, reason)

    def misfit(self, reason: str) -> EvaluationFailed:
        """The error to raise for operands that no runtime takes together."""
        return EvaluationFailed(self.op_type, self.domain, reason)

    def tensor(self, index: int) -> Array:
        """The required tensor operand at a position.

        Raises:
            NotCovered: if it is missing or not a tensor.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"operand {index} is missing or not a tensor")
        return value

    def optional(self, index: int) -> Array | None:
        """The tensor operand at a position, ``None`` if omitted."""
        return self.tensor(index) if index < len(self.inputs) and self.inputs[index] is not None else None

    def has(self, name: str) -> bool:
        return name in self.attributes

    def number(self, name: str, default: float | None = None) -> float:
        """A float attribute. ONNX stores them in float32, defaults included, so that is the value it
        means.
        """
        if name in self.attributes:
            attribute = self.attributes[name]
            value = attribute.value
            return float(value) if attribute.meta.get(_UNROUNDED) else float(np.float32(value))
        if default is None:
            raise self.refuse(f"attribute {name} is missing")
        return float(np.float32(default))

    def numbers(self, name: str, default: Sequence[float] = ()) -> list[float]:
        values = self.attributes[name].value if name in self.attributes else default
        return [float(np.float32(value)) for value in values]

    def integer(self, name: str, default: int | None = None) -> int:
        if name in self.attributes:
            return int(self.attributes[name].value)
        if default is None:
            raise self.refuse(f"attribute {name} is missing")
        return default

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        if name in self.attributes:
            return [int(value) for value in self.attributes[name].value]
        return None if default is None else list(default)

    def text(self, name: str, default: str) -> str:
        return str(self.attributes[name].value) if name in self.attributes else default

    def texts(self, name: str, default: Sequence[str]) -> list[str]:
        return [str(v) for v in self.attributes[name].value] if name in self.attributes else list(default)
