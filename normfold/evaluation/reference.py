"""Single operators of onnx.reference, run on our operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from normfold.evaluation.call import NodeCall
from normfold.evaluation.dtypes import cast_like, is_floating, is_half, promotes, working

# Operators whose implementation in onnx.reference was compared, in both precisions, with ONNX's own node
# tests, and the first opset for which it holds. Anything else is not covered.
COVERED: dict[str, int] = {
    "ArgMax": 1,
    "ArgMin": 1,
    "Attention": 1,
    "BitShift": 1,
    "BitwiseAnd": 1,
    "BitwiseNot": 1,
    "BitwiseOr": 1,
    "BitwiseXor": 1,
    "BlackmanWindow": 1,
    "CenterCropPad": 1,
    "Compress": 1,
    "Concat": 4,
    "ConcatFromSequence": 1,
    "ConvInteger": 1,
    "CumProd": 1,
    "CumSum": 1,
    "DFT": 1,
    "DepthToSpace": 1,
    "Det": 1,
    "DynamicQuantizeLinear": 1,
    "Einsum": 1,
    "Expand": 1,
    "Flatten": 1,
    "Gather": 1,
    "GatherND": 1,
    "HammingWindow": 1,
    "HannWindow": 1,
    "IsInf": 1,
    "IsNaN": 1,
    "MatMulInteger": 1,
    "MaxUnpool": 1,
    "MelWeightMatrix": 1,
    "NonMaxSuppression": 1,
    "NonZero": 1,
    "Not": 1,
    "OneHot": 1,
    "Optional": 1,
    "OptionalGetElement": 1,
    "OptionalHasElement": 1,
    "QLinearConv": 1,
    "QLinearMatMul": 1,
    "ReduceL1": 1,
    "ReduceL2": 1,
    "ReduceLogSum": 1,
    "ReduceLogSumExp": 1,
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 1,
    "Reshape": 5,
    "ReverseSequence": 1,
    "RoiAlign": 1,
    "RotaryEmbedding": 1,
    "STFT": 1,
    "Scatter": 1,
    "ScatterElements": 1,
    "ScatterND": 1,
    "SequenceAt": 1,
    "SequenceConstruct": 1,
    "SequenceEmpty": 1,
    "SequenceErase": 1,
    "SequenceInsert": 1,
    "SequenceLength": 1,
    "Shape": 1,
    "Size": 1,
    "Slice": 1,
    "SpaceToDepth": 1,
    "Split": 2,
    "SplitToSequence": 1,
    "Squeeze": 1,
    "TensorScatter": 1,
    "Tile": 6,
    "TopK": 1,
    "Transpose": 1,
    "Trilu": 1,
    "Unique": 1,
    "Unsqueeze": 1,
}

_ALIASES = {"Scatter": "ScatterElements"}

# Attributes that name the element type of a result or of a step on the way.
_TYPE_ATTRIBUTES = ("output_datatype", "softmax_precision")


def _silent(_pattern: str, *_args: Any) -> None:
    return None


def run_reference(
    call: NodeCall,
    *,
    op_type: str | None = None,
    attributes: Mapping[str, ir.Attr] | None = None,
    inputs: Sequence[Any] | None = None,
) -> Sequence[Any]:
    """Run one operator of onnx.reference.

    In float64 evaluation its float attributes are widened, so that no step falls back to float32. float16
    and bfloat16 are computed in float32 and rounded once, as runtimes do.

    Args:
        call: the node; the keyword arguments replace parts of it.
        op_type: another operator type.
        attributes: other attributes.
        inputs: other operands.

    Raises:
        NotCovered: if onnx.reference has no implementation.
    """
    op_type = op_type or _ALIASES.get(call.op_type, call.op_type)
    attributes = call.attributes if attributes is None else attributes
    operands = list(call.inputs if inputs is None else inputs)
    while operands and operands[-1] is None:
        operands.pop()
    from onnx.reference.ops._op_list import load_op  # late: it imports every operator

    try:
        implementation = load_op("", op_type, call.version)
    except (NotImplementedError, AssertionError, RuntimeError) as error:
        raise call.refuse("no implementation for this opset") from error
    node = onnx.NodeProto(
        op_type=op_type,
        input=[f"x{index}" if operand is not None else "" for index, operand in enumerate(operands)],
        output=[f"y{index}" if wanted else "" for index, wanted in enumerate(call.wanted)],
        attribute=[ir.to_proto(attribute) for attribute in attributes.values()],
    )
    parameters = {"log": _silent, "opsets": {"": call.version}, "new_ops": None, "verbose": 0}
    operator = implementation(node, parameters)
    if call.double:
        for name in getattr(operator, "attributes_names_", ()):
            setattr(operator, name, _widened(name, getattr(operator, name)))
    half = next((o.dtype for o in operands if isinstance(o, np.ndarray) and is_half(o.dtype)), None)
    if half is not None:
        operands = [working(o) if isinstance(o, np.ndarray) else o for o in operands]
    with np.errstate(all="ignore"):
        results = [_dense(result) for result in operator.run(*operands)]
    return results if half is None else [cast_like(result, half) for result in results]


def _dense(value: Any) -> Any:
    return np.asarray(value) if np.isscalar(value) or isinstance(value, np.generic) else value


def _widened(name: str, value: Any) -> Any:
    if name in _TYPE_ATTRIBUTES and value and promotes(ir.DataType(value)):
        return int(ir.DataType.DOUBLE)
    if isinstance(value, np.float32):
        return np.float64(value)
    if isinstance(value, list) and value and isinstance(value[0], np.float32):
        return [np.float64(item) for item in value]
    if isinstance(value, np.ndarray) and is_floating(value.dtype):
        return value.astype(np.float64)
    return value
