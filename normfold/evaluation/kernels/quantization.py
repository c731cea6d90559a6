"""DequantizeLinear and QuantizeLinear with scalar, per-axis and blocked scales.

Zero points, and the scales of QuantizeLinear, arrive in the model's own type. DequantizeLinear's scales
are promoted: its result is continuous in them, and a fold may hold them in double.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, is_floating, working
from normfold.evaluation.reference import run_reference


def _spread(call: NodeCall, parameter: Array, x: Array) -> Array:
    """A scale or zero point in a shape that broadcasts against x."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = call.integer("axis", 1) % x.ndim
    block = call.integer("block_size", 0)
    if block:
        return np.repeat(parameter, block, axis=axis)[tuple(slice(size) for size in x.shape)]
    if parameter.ndim != 1 or parameter.size != x.shape[axis]:
        raise call.misfit(f"a scale or zero point {parameter.shape} on axis {axis} of {x.shape}")
    return parameter.reshape(-1, *[1] * (x.ndim - axis - 1))


def dequantize_linear(call: NodeCall) -> Sequence[Array]:
    """DequantizeLinear: ``(x − zero_point) · scale``.

    https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """
    x, scale, zero_point = call.tensor(0), call.tensor(1), call.optional(2)
    target = scale.dtype
    if call.integer("output_dtype", 0):
        target = ir.DataType(call.integer("output_dtype")).numpy()
    wide = np.float64 if call.double else working(scale).dtype
    exact = x.dtype in (np.dtype(np.int32), np.dtype(np.int64))
    codes = x.astype(np.float64 if exact else wide)
    if zero_point is not None:
        codes = codes - _spread(call, zero_point, x).astype(codes.dtype)
    y = codes.astype(wide, copy=False) * _spread(call, scale, x).astype(wide)
    return (y if call.double and is_floating(target) else y.astype(target, copy=False),)


def quantize_linear(call: NodeCall) -> Sequence[Array]:
    """QuantizeLinear: ``saturate(round(x / scale) + zero_point)``, rounding half to even.

    https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """
    x, scale, zero_point = call.tensor(0), call.tensor(1), call.optional(2)
    target = ir.DataType(call.integer("output_dtype", 0) or ir.DataType.UINT8)
    if zero_point is not None:
        target = ir.DataType.from_numpy(zero_point.dtype)
    if not target.is_integer():
        return run_reference(call)
    if call.integer("precision", 0):
        raise call.refuse("attribute precision")
    ratio = working(x) / _spread(call, scale, x).astype(working(x).dtype)
    codes = np.rint(ratio).astype(np.float64)
    if zero_point is not None:
        codes = codes + _spread(call, zero_point, x).astype(np.float64)
    return (np.clip(codes, target.min, target.max).astype(target.numpy()),)


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "DequantizeLinear"): dequantize_linear,
    ("", "QuantizeLinear"): quantize_linear,
}
