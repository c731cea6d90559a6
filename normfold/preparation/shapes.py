"""Shapes and element types of every value, kept beside the graph so that the model written out gains no annotations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

Dim = int | str | None
Dims = tuple[Dim, ...]

# Output shape and type equal to the first input's. Only used where shape inference gave nothing.
_SHAPE_PRESERVING = frozenset(
    {
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "Relu",
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "Identity",
        "Dropout",
        "Softmax",
        "Neg",
        "Abs",
        "Clip",
    }
)


class Shapes:
    """Shape and type of values; symbolic dimensions are names, unknown ones ``None``."""

    def __init__(self, model: ir.Model) -> None:
        self._dims: dict[ir.Value, Dims | None] = {}
        self._types: dict[ir.Value, ir.DataType | None] = {}
        inferred = model.clone()
        with contextlib.suppress(onnx.shape_inference.InferenceError):
            ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(inferred)
        for own, other in zip(_values(model), _values(inferred), strict=True):
            self._dims[own] = _dims(other.shape)
            self._types[own] = other.dtype
        for graph in model.graphs():
            for node in graph:
                self._fill(node)

    def dims(self, value: ir.Value) -> Dims | None:
        """Dimensions, ``None`` where not even the rank is known."""
        return self._dims.get(value)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        return self._types.get(value)

    def rank(self, value: ir.Value) -> int | None:
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def set(self, value: ir.Value, dims: Dims | None, dtype: ir.DataType | None) -> None:
        self._dims[value] = dims
        self._types[value] = dtype

    def copy(self, source: ir.Value, target: ir.Value) -> None:
        self.set(target, self.dims(source), self.dtype(source))

    def _fill(self, node: ir.Node) -> None:
        """What inference cannot know behind an operator it does not know: the rank that a weight implies."""
        if (
            not node.outputs
            or not node.inputs
            or node.inputs[0] is None
            or node.domain not in ("", "ai.onnx")
        ):
            return
        source, target = node.inputs[0], node.outputs[0]
        if self._types.get(target) is None and node.op_type in (
            _SHAPE_PRESERVING | {"Conv", "ConvTranspose"}
        ):
            self._types[target] = self._types.get(source)
        if self._dims.get(target) is not None:
            return
        if node.op_type in _SHAPE_PRESERVING:
            self._dims[target] = self._dims.get(source)
        elif node.op_type == "Conv" and len(node.inputs) > 1 and node.inputs[1] is not None:
            weight = self._dims.get(node.inputs[1])
            if weight is not None:
                self._dims[target] = (None, weight[0], *(None for _ in weight[2:]))


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def _dims(shape: ir.Shape | None) -> Dims | None:
    if shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in shape)
