"""Shapes and element types of every value, kept beside the graph so that the model written out gains no annotations."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

Dim = int | str | None
Dims = tuple[Dim, ...]

# Output shape and type equal to the first input's.
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


_MOST_ROUNDS = 8


class Shapes:
    """Shape and type of values; symbolic dimensions are names, unknown ones ``None``."""

    def __init__(self, model: ir.Model) -> None:
        self._dims: dict[ir.Value, Dims | None] = {}
        self._types: dict[ir.Value, ir.DataType | None] = {}
        inferred = _inferred(model)
        for own, other in zip(_computed(model), _computed(inferred), strict=True):
            self.set(own, _dims(other.shape), other.dtype)
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is not None:
                    self.set(value, tuple(tensor.shape.numpy()), tensor.dtype)

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


def _inferred(model: ir.Model) -> ir.Model:
    """A copy with onnx's own inference applied, helped on where it gives up although the rank is certain."""
    copy = model.clone()
    for _ in range(_MOST_ROUNDS):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy)
        helped = [_state_rank(node) for graph in copy.graphs() for node in graph]
        if not any(helped):
            break
    return copy


def _state_rank(node: ir.Node) -> bool:
    """Give the first output the shape that the operator implies, where inference left none. True if it helped."""
    if not node.outputs or not node.inputs or node.inputs[0] is None or node.domain not in ("", "ai.onnx"):
        return False
    source, target = node.inputs[0], node.outputs[0]
    if target.shape is not None:
        return False
    second = node.inputs[1] if len(node.inputs) > 1 else None
    shape: ir.Shape | None = None
    if node.op_type in _SHAPE_PRESERVING:
        shape = source.shape
    elif node.op_type == "Conv" and second is not None and second.shape is not None:
        shape = ir.Shape([None, second.shape[0], *(None for _ in second.shape[2:])])
    elif node.op_type == "ConvTranspose" and second is not None and second.shape is not None:
        shape = ir.Shape([None for _ in second.shape])
    elif node.op_type == "Reshape" and second is not None and second.shape is not None:
        length = second.shape[0] if len(second.shape) == 1 else None
        shape = ir.Shape([None] * length) if isinstance(length, int) else None
    if shape is None:
        return False
    target.shape = shape
    if target.dtype is None and source.dtype is not None:
        target.dtype = source.dtype
    return True


def _computed(model: ir.Model) -> Iterator[ir.Value]:
    """Inputs and results in order. Not initializers: shape inference changes their order."""
    for graph in model.graphs():
        yield from graph.inputs
        for node in graph:
            yield from node.outputs


def _dims(shape: ir.Shape | None) -> Dims | None:
    if shape is None:
        return None
    return tuple(_dim(d) for d in shape)


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    """Some exporters write −1 or the name ``?`` for any size, on several axes that are not equal."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if dim.value in ("", "?") else dim.value
