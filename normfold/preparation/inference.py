"""Shape inference: onnx's own, helped on where constants or ranks are certain that it does not see."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.shape_inference
import onnx_ir as ir

from normfold.preparation.constants import Constants
from normfold.preparation.shapes import Shapes, dims_of

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


# Larger results are no shapes, and onnx's inference is given no weights.
_SMALL = 1024


def infer_shapes(model: ir.Model, overridable: frozenset[ir.Value], opsets: dict[str, int]) -> Shapes:
    """Shapes and types of every value of ``model``, which is not changed."""
    shapes = Shapes()
    inferred = _inferred(model, {v.name for v in overridable}, opsets)
    for own, other in zip(_computed(model), _computed(inferred), strict=True):
        shapes.set(own, dims_of(other.shape), other.dtype)
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                shapes.set(value, tuple(tensor.shape.numpy()), tensor.dtype)
    return shapes


def _inferred(model: ir.Model, overridable: set[str | None], opsets: dict[str, int]) -> ir.Model:
    copy = model.clone()
    frozen = frozenset(v for v in copy.graph.inputs if v.is_initializer() and v.name in overridable)
    constants = Constants(frozen, opsets, lambda v: v.dtype, lambda v: dims_of(v.shape))
    for _ in range(_MOST_ROUNDS):
        _infer(copy)
        helped = [_state_rank(node) for graph in copy.graphs() for node in graph]
        stated = [_state_constants(node, constants) for graph in copy.graphs() for node in graph]
        if not any(helped) and not any(stated):
            break
        constants.forget()
    return copy


def _infer(model: ir.Model) -> None:
    """Let onnx annotate ``model``. onnx_ir's own pass takes time with the square of the initializers."""
    graph = model.graph
    inputs = list(graph.inputs)
    listed = set(inputs)
    weights = [
        v for v in graph.initializers.values() if v.const_value is not None and v.const_value.size > _SMALL
    ]
    try:
        for value in weights:
            graph.initializers.pop(value.name or "")
        graph.inputs.extend(value for value in weights if value not in listed)
        proto = ir.to_proto(model)
    finally:
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        for value in weights:
            graph.initializers.add(value)
    try:
        inferred = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return  # what is not known bars folds, no more
    for own, other in zip(model.graphs(), inferred.graphs(), strict=True):
        found = ir.convenience.create_value_mapping(other)
        for name, value in ir.convenience.create_value_mapping(own).items():
            known = found.get(name)
            if known is not None and known.shape is not None:
                value.shape = known.shape
            if known is not None and known.dtype is not None:
                value.dtype = known.dtype


def _state_constants(node: ir.Node, constants: Constants) -> bool:
    """Put the value of a constant expression where inference can see it. True if that says something new."""
    new = False
    for value in node.outputs:
        if node.op_type == "Constant" or not value.uses() or not constants.is_constant(value):
            continue
        is_float = value.dtype is None or value.dtype.is_floating_point()
        known = dims_of(value.shape)
        if is_float and known is not None and all(isinstance(dim, int) for dim in known):
            continue
        array = constants.array(value, native=True)
        if array is None:
            continue
        value.shape = ir.Shape(array.shape)
        new = True
        if not is_float and array.size <= _SMALL and node.graph is not None:
            name = f"{value.name}:constant"
            constant = ir.Value(
                name=name,
                shape=value.shape,
                type=value.type,
                const_value=ir.tensor(array, name=name),
            )
            node.graph.register_initializer(constant)
            value.replace_all_uses_with(constant, replace_graph_outputs=True)
    return new


def _state_rank(node: ir.Node) -> bool:
    """Give the first output the shape that the operator implies, if it has none. True if it helped."""
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
