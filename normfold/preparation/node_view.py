"""Read-only facts about a node, as recognition and the operator table need them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.preparation.constant64 import Constant64
from normfold.preparation.shapes import Dims
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused


class NodeView:
    """Read-only facts about a node, as the operator table needs them."""

    def __init__(self, node: ir.Node, workspace: Workspace) -> None:
        self.node = node
        self._workspace = workspace

    @property
    def op_type(self) -> str:
        return self.node.op_type

    @property
    def is_fused(self) -> bool:
        """Whether runtimes recognise the node as part of a larger kernel (``recognition.idioms``)."""
        return self.node in self._workspace.fused

    @property
    def opset(self) -> int:
        return self._workspace.opset_of(self.node)

    @property
    def name(self) -> str:
        return self.node.outputs[0].name or self.node.op_type

    def has(self, slot: int) -> bool:
        return slot < len(self.node.inputs) and self.node.inputs[slot] is not None

    def value(self, slot: int) -> ir.Value | None:
        return self.node.inputs[slot] if slot < len(self.node.inputs) else None

    def dims(self, slot: int) -> Dims | None:
        value = self.value(slot)
        return None if value is None else self._workspace.dims(value)

    def output_dims(self, index: int = 0) -> Dims | None:
        return self._workspace.dims(self.node.outputs[index])

    def rank(self, slot: int) -> int:
        """Rank of an operand.

        Raises:
            Refused: NF112 where it is not known.
        """
        dims = self.dims(slot)
        if dims is None:
            raise Refused("NF112", f"the rank of an operand of {self.op_type} {self.name!r} is not known")
        return len(dims)

    def is_constant(self, slot: int) -> bool:
        return self._workspace.constants.is_constant(self.value(slot))

    def constant(self, slot: int) -> Constant64 | None:
        """A floating constant operand as a recipe."""
        return self._workspace.constants.recipe(self.value(slot))

    def weight(self, slot: int, what: str = "weight") -> Constant64:
        """A floating constant operand that is to be edited.

        Raises:
            Refused: NF102, NF115 or NF124, saying why it may not be.
        """
        constant = self.constant(slot)
        if constant is not None:
            return constant
        value = self.value(slot)
        where = f"the {what} of {self.op_type} {self.name!r}"
        if value is not None and self._workspace.constants.is_overridable(value):
            raise Refused(
                "NF102", f"{where} ({value.name!r}) is a graph input with a default that a caller may replace"
            )
        producer = None if value is None else value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear":
            raise Refused("NF124", f"{where} is quantised")
        raise Refused("NF115", f"{where} is computed at run time")

    def integers(self, slot: int) -> list[int] | None:
        """A constant integer operand (shape, axes, indices) as a flat list."""
        value = self.value(slot)
        array = self._workspace.constants.array(value, native=True)
        if array is None or array.dtype.kind not in "iu":
            return None
        return [int(i) for i in array.reshape(-1)]

    def array(self, slot: int) -> np.ndarray[Any, Any] | None:
        """A constant operand's values, float64 for floating types."""
        return self._workspace.constants.array(self.value(slot))

    def int_attribute(self, name: str, default: int) -> int:
        return self.node.attributes.get_int(name, default)

    def float_attribute(self, name: str, default: float) -> float:
        return float(self.node.attributes.get_float(name, default))

    def string_attribute(self, name: str, default: str) -> str:
        return self.node.attributes.get_string(name, default)

    def ints_attribute(self, name: str) -> list[int] | None:
        values = self.node.attributes.get_ints(name)
        return None if values is None else [int(v) for v in values]

    def has_attribute(self, name: str) -> bool:
        return name in self.node.attributes

    def producer(self, slot: int) -> NodeView | None:
        """The node that computes an operand."""
        value = self.value(slot)
        node = None if value is None else value.producer()
        return None if node is None else NodeView(node, self._workspace)

    def is_used(self, index: int) -> bool:
        """Whether an output is read by anything."""
        value = self.node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def dtype(self, slot: int) -> ir.DataType | None:
        value = self.value(slot)
        return None if value is None else self._workspace.shapes.dtype(value)

    def output_dtype(self, index: int = 0) -> ir.DataType | None:
        return self._workspace.shapes.dtype(self.node.outputs[index])
