"""Shape inference: onnx's own, helped on where constants or ranks are certain that it does not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.preparation.constants import Constants, constant_of
from normfold.preparation.graphs import graphs_of
from normfold.preparation.shapes import Dims, Shapes, dims_of, tensor_dims
from normfold.preparation.skeleton import SMALL, Scope, Skeleton

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


def infer_shapes(model: ir.Model, shapes: Shapes, constants: Constants) -> None:
    """Enters shapes and types of every value of ``model``, which is not changed, into ``shapes``.

    Rounds of onnx's inference alternate with what constants and ranks add to it.

    Args:
        model: the model.
        shapes: empty; holds the result.
        constants: of the model; they look into ``shapes``.
    """
    _read_annotations(model, shapes)
    skeleton = Skeleton(model)
    stated: set[ir.Value] = set()
    for _ in range(_MOST_ROUNDS):
        skeleton.infer()
        skeleton.read(shapes)
        constants.forget()
        helped = [_state_ranks(scope, skeleton, shapes) for scope in skeleton.scopes]
        helped += [_state_constants(scope, skeleton, shapes, constants, stated) for scope in skeleton.scopes]
        if not any(helped):
            break
    constants.forget()


def _read_annotations(model: ir.Model, shapes: Shapes) -> None:
    for graph in graphs_of(model):
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
            if value.type is None or isinstance(value.type, ir.TensorType):
                shapes.set(value, dims_of(value.shape), value.dtype)
        constants = [(v, v.const_value) for v in graph.initializers.values()]
        constants += [(node.outputs[0], constant_of(node)) for node in graph if node.op_type == "Constant"]
        for value, tensor in constants:
            if tensor is not None:
                shapes.set(value, tensor_dims(tensor), tensor.dtype)


def _state_ranks(scope: Scope, skeleton: Skeleton, shapes: Shapes) -> bool:
    """Give results the shape that their operator implies, where that is not known. True if that helped."""
    found: dict[str, tuple[Dims, ir.DataType | None]] = {}
    for node in scope.nodes:
        if not node.outputs:
            continue
        known = shapes.dims(node.outputs[0])
        dims = known if _is_static(known) else _merged(known, _implied_dims(node, shapes))
        if dims is not None and node.op_type == "BatchNormalization":
            dims = _with_channels(dims, node, shapes)
        if dims == known or dims is None:
            continue
        target, source = node.outputs[0], node.inputs[0]
        shapes.refine(
            target, dims, shapes.dtype(target) or (None if source is None else shapes.dtype(source))
        )
        found[target.name or ""] = dims, shapes.dtype(target)
    skeleton.state_shapes(scope, found)
    return bool(found)


def _merged(known: Dims | None, implied: Dims | None) -> Dims | None:
    """What is known of a result, and sizes that its operator implies where it was left open."""
    if known is None or implied is None or len(known) != len(implied):
        return implied if known is None else known
    return tuple(b if isinstance(b, int) or a is None else a for a, b in zip(known, implied, strict=True))


def _with_channels(dims: Dims, node: ir.Node, shapes: Shapes) -> Dims:
    """A BatchNormalization has as many channels as its scale, whatever its input says of them."""
    scale = None if len(node.inputs) < 2 or node.inputs[1] is None else shapes.dims(node.inputs[1])
    open_channels = len(dims) > 1 and not isinstance(dims[1], int) and node.domain in ("", "ai.onnx")
    if scale is None or len(scale) != 1 or not isinstance(scale[0], int) or not open_channels:
        return dims
    return (dims[0], scale[0], *dims[2:])


def _implied_dims(node: ir.Node, shapes: Shapes) -> Dims | None:
    if not node.inputs or node.inputs[0] is None:
        return None
    if (node.domain, node.op_type) == ("com.microsoft", "GroupNorm"):
        return shapes.dims(node.inputs[0])
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _SHAPE_PRESERVING:
        return shapes.dims(node.inputs[0])
    second = node.inputs[1] if len(node.inputs) > 1 else None
    dims = None if second is None else shapes.dims(second)
    if dims is None:
        return None
    if node.op_type == "Conv":
        return None, dims[0], *(None for _ in dims[2:])
    if node.op_type == "ConvTranspose":
        return (None,) * len(dims)
    if node.op_type == "Reshape" and len(dims) == 1 and isinstance(dims[0], int):
        return (None,) * dims[0]
    return None


def _state_constants(
    scope: Scope, skeleton: Skeleton, shapes: Shapes, constants: Constants, stated: set[ir.Value]
) -> bool:
    """Put constant expressions where inference can see their value. True if that may say something new."""
    found_shapes: dict[str, tuple[Dims, ir.DataType | None]] = {}
    found: dict[int, tuple[int, np.ndarray[Any, Any]]] = {}
    helps = False
    for index, node in enumerate(scope.nodes):
        if node.op_type == "Constant":
            continue
        for output, value in enumerate(node.outputs):
            if value in stated or not value.uses() or not constants.is_constant(value):
                continue
            dtype = shapes.dtype(value)
            is_float = (dtype is None or dtype.is_floating_point()) and not _scales_sizes(value)
            if is_float and _is_static(shapes.dims(value)):
                continue
            array = constants.array(value, native=True)
            if array is None:
                continue
            stated.add(value)
            shapes.refine(value, array.shape, None)
            if not is_float and array.size <= SMALL:
                found[index] = output, array
            else:
                found_shapes[value.name or ""] = array.shape, dtype
            helps = helps or _tells(value, shapes, constants)
    skeleton.state_shapes(scope, found_shapes)
    skeleton.state_constants(scope, found)
    return helps


def _scales_sizes(value: ir.Value) -> bool:
    """Whether sizes are multiplied by it: floating numbers that inference has to see."""
    return any(reader.op_type in ("Resize", "Upsample") for reader, _ in value.uses())


def _tells(value: ir.Value, shapes: Shapes, constants: Constants) -> bool:
    """Whether the value of a constant can say something of its readers that is not known yet."""
    return any(
        not _is_static(shapes.dims(result)) or _may_be_integer(shapes.dtype(result))
        for reader, _ in value.uses()
        for result in reader.outputs
        if not constants.is_constant(result)
    )


def _may_be_integer(dtype: ir.DataType | None) -> bool:
    return dtype is None or not dtype.is_floating_point()


def _is_static(dims: Dims | None) -> bool:
    """Whether every dimension is a number."""
    return dims is not None and all(isinstance(dim, int) for dim in dims)
