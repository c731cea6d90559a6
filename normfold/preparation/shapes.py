"""Shapes and element types of every value, kept beside the graph so that the model written out gains no
annotations."""

from __future__ import annotations

import onnx_ir as ir

Dim = int | str | None
Dims = tuple[Dim, ...]


class Shapes:
    """Shape and type of values; symbolic dimensions are names, unknown ones ``None``."""

    def __init__(self) -> None:
        self._dims: dict[ir.Value, Dims | None] = {}
        self._types: dict[ir.Value, ir.DataType | None] = {}

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

    def refine(self, value: ir.Value, dims: Dims | None, dtype: ir.DataType | None) -> None:
        """Enter what has been found; ``None`` says nothing."""
        if dims is not None:
            self._dims[value] = dims
        if dtype is not None:
            self._types[value] = dtype

    def copy(self, source: ir.Value, target: ir.Value) -> None:
        self.set(target, self.dims(source), self.dtype(source))


def tensor_dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Dimensions of a tensor; from the protobuf where it is one, as its ``shape`` is made anew every time."""
    if isinstance(tensor, ir.TensorProtoTensor):
        return tuple(tensor.raw.dims)
    return tuple(tensor.shape.numpy())


def dims_of(shape: ir.Shape | None) -> Dims | None:
    """An annotation as dimensions."""
    if shape is None:
        return None
    return tuple(_dim(d) for d in shape)


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    """Some exporters write −1 or the name ``?`` for any size, on several axes that are not equal."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if dim.value in ("", "?") else dim.value
