"""Normalisations, in the two-pass form: the mean is subtracted before squares are taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, working


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x̂, mean, 1/√(var + ε)) with the biased variance over ``axes``, which are kept with size 1."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def batch_normalization(call: NodeCall) -> Sequence[Array | None]:
    """BatchNormalization of every opset: ``Y = (X − mean) / √(var + ε) · scale + B``. X is [N, C, *S].

    Opsets 1 and 6 train unless ``is_test``; 7 to 13 train iff more than Y is asked for; from 14 on
    ``training_mode`` says so. Up to opset 8 ``spatial = 0`` gives every position its own parameters, [C,
    *S]. Training normalises with the biased batch variance and updates ``running = momentum · old + (1 −
    momentum) · batch``.
    https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
    """
    dtype = call.tensor(0).dtype
    x, scale, bias, mean, var = (working(call.tensor(index)) for index in range(5))
    epsilon, momentum = call.number("epsilon", 1e-5), call.number("momentum", 0.9)
    spatial = call.version >= 9 or call.integer("spatial", 1) == 1
    if call.version >= 14:
        training = call.integer("training_mode", 0) == 1
    elif call.version >= 7:
        training = any(call.wanted[1:])
    else:
        training = call.integer("is_test", 0) == 0
    shape = (1, -1, *[1] * (x.ndim - 2)) if spatial else (1, *x.shape[1:])

    def spread(parameter: Array) -> Array:
        return parameter.reshape(shape)

    if not training:
        y = x - spread(mean)
        y *= spread(scale / np.sqrt(var + epsilon))
        y += spread(bias)
        return (y.astype(dtype, copy=False),)
    axes = (0, *range(2, x.ndim)) if spatial else (0,)
    batch_mean = x.mean(axis=axes, keepdims=True)
    y = x - batch_mean
    flat = y.reshape(*y.shape[:2], -1)
    squares = np.einsum("ncp,ncp->nc", flat, flat) if spatial else np.square(flat)
    batch_var = squares.sum(axis=0).reshape(batch_mean.shape) / (x.size // max(batch_mean.size, 1))
    y *= spread(scale) / np.sqrt(batch_var + epsilon)
    y += spread(bias)
    results = [
        y,
        mean * momentum + batch_mean.reshape(mean.shape) * (1 - momentum),
        var * momentum + batch_var.reshape(var.shape) * (1 - momentum),
    ]
    types = [dtype, call.tensor(3).dtype, call.tensor(4).dtype]
    if call.version < 14:
        results += [batch_mean.reshape(mean.shape), batch_var.reshape(var.shape)]
        types += types[1:]
    return tuple(r.astype(t, copy=False) for r, t in zip(results, types, strict=True))[: len(call.wanted)]


def instance_normalization(call: NodeCall) -> Sequence[Array]:
    """InstanceNormalization over the spatial axes of X [N, C, *S]; scale and B are [C]."""
    x = working(call.tensor(0))
    shape = (-1, *[1] * (x.ndim - 2))
    normal, _, _ = _standardise(x, tuple(range(2, x.ndim)), call.number("epsilon", 1e-5))
    y = normal * working(call.tensor(1)).reshape(shape) + working(call.tensor(2)).reshape(shape)
    return (y.astype(call.tensor(0).dtype, copy=False),)


def group_normalize(x: Array, groups: int, epsilon: float) -> Array:
    """x̂ over each of ``groups`` contiguous channel groups of X [N, C, *S]."""
    grouped = x.reshape(x.shape[0], groups, -1)
    return _standardise(grouped, (2,), epsilon)[0].reshape(x.shape)


def group_normalization(call: NodeCall) -> Sequence[Array]:
    """GroupNormalization: scale and bias are [G] in opset 18 to 20 and [C] from 21 on.

    https://onnx.ai/onnx/operators/onnx__GroupNormalization.html
    """
    x, scale, bias = (working(call.tensor(index)) for index in range(3))
    groups, channels = call.integer("num_groups"), x.shape[1]
    if channels % groups:
        raise call.misfit(f"{channels} channels do not split into {groups} groups")
    expected = groups if call.version < 21 else channels
    if scale.shape != (expected,) or bias.shape != (expected,):
        raise call.misfit(f"scale {scale.shape} and bias {bias.shape}, expected ({expected},)")
    repeat = channels // expected
    shape = (-1, *[1] * (x.ndim - 2))
    y = group_normalize(x, groups, call.number("epsilon", 1e-5))
    y = y * np.repeat(scale, repeat).reshape(shape) + np.repeat(bias, repeat).reshape(shape)
    return (y.astype(call.tensor(0).dtype, copy=False),)


def layer_normalization(call: NodeCall) -> Sequence[Array]:
    """LayerNormalization over ``axis`` and all later axes; further outputs Mean and InvStdDev.

    https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
    """
    x = working(call.tensor(0))
    axis = call.integer("axis", -1) % x.ndim
    normal, mean, inverse = _standardise(x, tuple(range(axis, x.ndim)), call.number("epsilon", 1e-5))
    y = normal * working(call.tensor(1))
    if (bias := call.optional(2)) is not None:
        y = y + working(bias)
    return (y.astype(call.tensor(0).dtype, copy=False), mean, inverse)[: max(len(call.wanted), 1)]


def rms_normalization(call: NodeCall) -> Sequence[Array]:
    """RMSNormalization: ``X / √(mean(X²) + ε) · scale`` over ``axis`` and all later axes."""
    x = working(call.tensor(0))
    axis = call.integer("axis", -1) % x.ndim
    square = (x * x).mean(axis=tuple(range(axis, x.ndim)), keepdims=True)
    y = x / np.sqrt(square + call.number("epsilon", 1e-5)) * working(call.tensor(1))
    return (y.astype(call.tensor(0).dtype, copy=False),)


def lp_normalization(call: NodeCall) -> Sequence[Array]:
    """LpNormalization, p = 1 or 2; a zero vector stays zero."""
    x, axis = working(call.tensor(0)), call.integer("axis", -1)
    order = call.integer("p", 2)
    if order not in (1, 2):
        raise call.refuse(f"p = {order}")
    if order == 1:
        norm = np.abs(x).sum(axis=axis, keepdims=True)
    else:
        norm = np.sqrt((x * x).sum(axis=axis, keepdims=True))
    y = np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)
    return (y.astype(call.tensor(0).dtype, copy=False),)


def mean_variance_normalization(call: NodeCall) -> Sequence[Array]:
    """MeanVarianceNormalization: ``(X − mean) / (√var + 1e-9)``, by default over N, H, W."""
    x = working(call.tensor(0))
    axes = tuple(call.integers("axes", [0, 2, 3]) or ())
    centred = x - x.mean(axis=axes, keepdims=True)
    y = centred / (np.sqrt((centred * centred).mean(axis=axes, keepdims=True)) + float(np.float32(1e-9)))
    return (y.astype(call.tensor(0).dtype, copy=False),)


def lrn(call: NodeCall) -> Sequence[Array]:
    """LRN: ``X / (bias + alpha/size · Σ X²)^beta`` over ``size`` neighbouring channels of X [N, C, *S]."""
    x = working(call.tensor(0))
    size, channels = call.integer("size"), x.shape[1]
    below, above = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = np.pad(x * x, [(0, 0), (below, above), *[(0, 0)] * (x.ndim - 2)])
    total = np.zeros_like(x)
    for offset in range(size):
        total += squares[:, offset : offset + channels]
    scale = call.number("bias", 1.0) + call.number("alpha", 1e-4) / size * total
    return ((x / scale ** call.number("beta", 0.75)).astype(call.tensor(0).dtype, copy=False),)


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "BatchNormalization"): batch_normalization,
    ("", "InstanceNormalization"): instance_normalization,
    ("", "GroupNormalization"): group_normalization,
    ("", "LayerNormalization"): layer_normalization,
    ("", "RMSNormalization"): rms_normalization,
    ("", "LpNormalization"): lp_normalization,
    ("", "MeanVarianceNormalization"): mean_variance_normalization,
    ("", "LRN"): lrn,
}
