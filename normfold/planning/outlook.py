"""A short look ahead, where an affine may go to one of several operands and only one can be tried."""

from __future__ import annotations

import onnx_ir as ir

from normfold.preparation.node_view import NodeView
from normfold.recognition.virtual import is_virtual

_FARTHEST = 16

_TAKES_BOTH = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "DeformConv",
        "Gemm",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
    }
)
_TAKES_SCALE = frozenset({"MatMul", "RMSNormalization"})
_LETS_THROUGH = frozenset(
    {
        "AveragePool",
        "Cast",
        "Clip",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "Max",
        "MaxPool",
        "Min",
        "PRelu",
        "Pad",
        "ReduceMax",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    }
)
_ASKS_ANY = frozenset({"Add", "Div", "Mul", "Sub", "Sum"})


def outlook(node: NodeView, slot: int) -> int:
    """How likely the operand in ``slot`` takes an affine.

    3 for a constant, 2 for a layer with a bias that nothing else reads, 1 for one without, 0 otherwise.
    """
    if node.is_constant(slot):
        return 3
    return _behind(node.value(slot), _FARTHEST)


def _behind(value: ir.Value | None, left: int) -> int:
    producer = None if value is None else value.producer()
    if value is None or producer is None or left == 0 or value.is_graph_output() or len(value.uses()) != 1:
        return 0
    if is_virtual(producer) or producer.op_type in _TAKES_BOTH:
        return 2
    if producer.op_type in _TAKES_SCALE:
        return 1
    if producer.op_type in _ASKS_ANY:
        return max((_behind(operand, left // 2) for operand in producer.inputs), default=0)
    if producer.op_type in _LETS_THROUGH:
        return _behind(producer.inputs[0], left - 1)
    return 0
