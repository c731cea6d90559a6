"""Operators of onnxruntime's com.microsoft domain that its optimiser or exporters leave in saved models.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, working
from normfold.evaluation.kernels import activation as act
from normfold.evaluation.kernels.convolution import convolve
from normfold.evaluation.kernels.linear import gemm
from normfold.evaluation.kernels.normalization import group_normalize, layer_normalization, rms_normalization

_DOMAIN = "com.microsoft"


def _like(y: Array, x: Array) -> Array:
    return np.asarray(y).astype(x.dtype, copy=False)


def _activate(call: NodeCall, y: Array, parameters: Sequence[float]) -> Array:
    """Apply the activation that a fused operator names, if any."""
    name = call.text("activation", "")
    values = list(parameters)
    match name, len(values):
        case (("" | "Identity"), _):
            return y
        case "Relu", _:
            return act.relu(y)
        case "Tanh", _:
            return np.asarray(np.tanh(y))
        case "Sigmoid", _:
            return act.sigmoid(y)
        case "LeakyRelu", n if n >= 1:
            return act.leaky_relu(y, values[0])
        case "Clip", n if n >= 2:
            return np.clip(y, values[0], values[1])
        case "HardSigmoid", n if n >= 2:
            return act.hard_sigmoid(y, values[0], values[1])
    raise call.refuse(f"activation {name!r} with {len(values)} parameters")


def fused_conv(call: NodeCall) -> Sequence[Array]:
    """FusedConv: ``activation(Conv(X, W, B) + Z)``."""
    x, z = call.tensor(0), call.optional(3)
    y = convolve(call, working(x), call.tensor(1), call.optional(2))
    if z is not None:
        y = y + working(z)
    return (_like(_activate(call, y, call.numbers("activation_params")), x),)


def fused_gemm(call: NodeCall) -> Sequence[Array]:
    """FusedGemm: ``activation(Gemm(A, B, C))``."""
    (y,) = gemm(call)
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return (_like(_activate(call, working(y), [call.number(n) for n in names if call.has(n)]), y),)


def fused_matmul(call: NodeCall) -> Sequence[Array]:
    """FusedMatMul: ``alpha · A' · B'``; transX swaps the last two axes, transBatchX moves axis 0 before the
    last.
    """
    operands = []
    for index, suffix in enumerate("AB"):
        operand = working(call.tensor(index))
        if call.integer(f"transBatch{suffix}", 0):
            operand = np.moveaxis(operand, 0, -2)
        if call.integer(f"trans{suffix}", 0) and operand.ndim > 1:
            operand = operand.swapaxes(-1, -2)
        operands.append(operand)
    y = np.matmul(operands[0], operands[1]) * call.number("alpha", 1.0)
    return (_like(y, call.tensor(0)),)


def ms_gelu(call: NodeCall) -> Sequence[Array]:
    """Gelu: ``x/2 · (1 + erf(x/√2))``."""
    x = call.tensor(0)
    return (_like(act.gelu(working(x)), x),)


def bias_gelu(call: NodeCall) -> Sequence[Array]:
    """BiasGelu: Gelu of A + B."""
    x = call.tensor(0)
    return (_like(act.gelu(working(x) + working(call.tensor(1))), x),)


def fast_gelu(call: NodeCall) -> Sequence[Array]:
    """FastGelu: the tanh form of Gelu, of X + bias."""
    x, bias = call.tensor(0), call.optional(1)
    total = working(x) if bias is None else working(x) + working(bias)
    return (_like(act.gelu_tanh(total), x),)


def quick_gelu(call: NodeCall) -> Sequence[Array]:
    """QuickGelu: ``x · sigmoid(alpha · x)``."""
    x = call.tensor(0)
    wide = working(x)
    return (_like(wide * act.sigmoid(call.number("alpha", 1.702) * wide), x),)


def _skip_sum(call: NodeCall, bias_index: int) -> Array:
    total = working(call.tensor(0)) + working(call.tensor(1))
    if (bias := call.optional(bias_index)) is not None:
        total = total + working(bias)
    return total


def skip_layer_normalization(call: NodeCall) -> Sequence[Array | None]:
    """SkipLayerNormalization: LayerNorm of input + skip + bias over the last axis; output 3 is that sum."""
    total = _skip_sum(call, 4)
    gamma, beta = call.tensor(2), call.optional(3)
    inner = dataclasses.replace(call, inputs=(total, gamma, beta), wanted=(True, True, True))
    inner = _with_default_epsilon(inner)
    y, mean, inverse = layer_normalization(inner)
    return _like(y, call.tensor(0)), mean, inverse, _like(total, call.tensor(0))


def skip_rms_normalization(call: NodeCall) -> Sequence[Array | None]:
    """SkipSimplifiedLayerNormalization: RMSNorm of input + skip + bias over the last axis; output 3 is that
    sum.
    """
    total = _skip_sum(call, 3)
    inner = dataclasses.replace(call, inputs=(total, call.tensor(2)), wanted=(True,))
    (y,) = rms_normalization(_with_default_epsilon(inner))
    return _like(y, call.tensor(0)), None, None, _like(total, call.tensor(0))


def _with_default_epsilon(call: NodeCall) -> NodeCall:
    """The Skip operators default to ε = 1e-12, unlike the normalisations they contain."""
    if call.has("epsilon"):
        return call
    return dataclasses.replace(
        call, attributes={**call.attributes, "epsilon": ir.AttrFloat32("epsilon", 1e-12)}
    )


def _group_normalize_in_one_pass(x: Array, groups: int, epsilon: float) -> Array:
    rows = x.reshape(x.shape[0], groups, -1)
    mean = rows.mean(axis=2, keepdims=True)
    variance = np.maximum((rows * rows).mean(axis=2, keepdims=True) - mean * mean, 0)
    return np.asarray((rows - mean) / np.sqrt(variance + np.asarray(epsilon, x.dtype))).reshape(x.shape)


def group_norm(call: NodeCall) -> Sequence[Array]:
    """GroupNorm: X [N, H, W, C] (or [N, C, H, W] with channels_last = 0), gamma and beta [C], SiLU if
    activation = 1.

    In the model's own types it rounds as the CUDA kernel does: ``E[x²] − E[x]²`` in float32.
    """
    x = call.tensor(0)
    last = call.integer("channels_last", 1)
    wide = np.moveaxis(working(x), -1, 1) if last else working(x)
    shape = (-1, *[1] * (x.ndim - 2))
    normalize = group_normalize if call.double else _group_normalize_in_one_pass
    y = normalize(wide, call.integer("groups"), call.number("epsilon", 1e-5))
    y = y * working(call.tensor(1)).reshape(shape) + working(call.tensor(2)).reshape(shape)
    match call.integer("activation"):
        case 0:
            pass
        case 1:
            y = y * act.sigmoid(y)
        case other:
            raise call.refuse(f"activation {other}")
    return (_like(np.moveaxis(y, 1, -1) if last else y, x),)


KERNELS: dict[tuple[str, str], Kernel] = {
    (_DOMAIN, "BiasGelu"): bias_gelu,
    (_DOMAIN, "FastGelu"): fast_gelu,
    (_DOMAIN, "FusedConv"): fused_conv,
    (_DOMAIN, "FusedGemm"): fused_gemm,
    (_DOMAIN, "FusedMatMul"): fused_matmul,
    (_DOMAIN, "Gelu"): ms_gelu,
    (_DOMAIN, "GroupNorm"): group_norm,
    (_DOMAIN, "LayerNormalization"): layer_normalization,
    (_DOMAIN, "QuickGelu"): quick_gelu,
    (_DOMAIN, "SimplifiedLayerNormalization"): rms_normalization,
    (_DOMAIN, "SkipLayerNormalization"): skip_layer_normalization,
    (_DOMAIN, "SkipSimplifiedLayerNormalization"): skip_rms_normalization,
    # onnxruntime registers it in ONNX's own domain too.
    ("", "SimplifiedLayerNormalization"): rms_normalization,
}
