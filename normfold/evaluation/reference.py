"""Single operators of onnx.reference, run on our operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference.ops._op_list import load_op

from normfold.evaluation.call import NodeCall
from normfold.evaluation.dtypes import BFLOAT16, Array, cast_like, is_floating

# Operators whose implementation in onnx.reference was compared, in both precisions, with onnxruntime or a
# closed form, and the first opset for which it holds. Anything else is not covered.
COVERED: dict[str, int] = {}


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

    In float64 evaluation its float attributes are widened, so that no step falls back to float32. bfloat16, which
    numpy does not compute with everywhere, is computed in float32 and rounded.

    Args:
        call: the node; the keyword arguments replace parts of it.
        op_type: another operator type.
        attributes: other attributes.
        inputs: other operands.

    Raises:
        NotCovered: if onnx.reference has no implementation.
    """
    op_type = op_type or call.op_type
    attributes = call.attributes if attributes is None else attributes
    operands = list(call.inputs if inputs is None else inputs)
    while operands and operands[-1] is None:
        operands.pop()
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
            setattr(operator, name, _widened(getattr(operator, name)))
    narrowed = any(isinstance(o, np.ndarray) and o.dtype == BFLOAT16 for o in operands)
    if narrowed:
        operands = [cast_like(o, np.dtype(np.float32)) if _is_bfloat16(o) else o for o in operands]
    with np.errstate(all="ignore"):
        results = operator.run(*operands)
    if narrowed:
        results = [cast_like(r, BFLOAT16) for r in results]
    return [_dense(result) for result in results]


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == BFLOAT16


def _dense(value: Any) -> Any:
    return np.asarray(value) if np.isscalar(value) or isinstance(value, np.generic) else value


def _widened(value: Any) -> Any:
    if isinstance(value, np.float32):
        return np.float64(value)
    if isinstance(value, list) and value and isinstance(value[0], np.float32):
        return [np.float64(item) for item in value]
    if isinstance(value, np.ndarray) and is_floating(value.dtype):
        return value.astype(np.float64)
    return value


__all__ = ["COVERED", "Array", "run_reference"]
