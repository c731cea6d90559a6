"""Gemm and MatMul."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, is_floating, working


def gemm(call: NodeCall) -> Sequence[Array]:
    """Gemm: ``Y = alpha · A' · B' + beta · C``, A' [M, K], B' [K, N], C broadcast to [M, N].

    https://onnx.ai/onnx/operators/onnx__Gemm.html
    """
    a, b, c = call.tensor(0), call.tensor(1), call.optional(2)
    dtype = a.dtype
    if a.ndim != 2 or b.ndim != 2:
        raise call.refuse(f"operands of rank {a.ndim} and {b.ndim}")
    left = working(a.T if call.integer("transA", 0) else a)
    right = working(b.T if call.integer("transB", 0) else b)
    y = np.matmul(left, right)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if not is_floating(dtype):
        if not (alpha.is_integer() and beta.is_integer()):
            raise call.refuse("a fractional alpha or beta on integers")
        alpha, beta = int(alpha), int(beta)
    if alpha != 1:
        y = y * alpha
    if c is not None and beta != 0:
        addend = working(c) if beta == 1 else working(c) * beta
        if np.broadcast_shapes(addend.shape, y.shape) != y.shape:
            raise call.misfit(f"C {addend.shape} does not broadcast to {y.shape}")
        y = y + addend
    return (y.astype(dtype, copy=False),)


def matmul(call: NodeCall) -> Sequence[Array]:
    """MatMul, as numpy.matmul. https://onnx.ai/onnx/operators/onnx__MatMul.html"""
    a, b = call.tensor(0), call.tensor(1)
    return (np.asarray(np.matmul(working(a), working(b))).astype(a.dtype, copy=False),)


KERNELS: dict[tuple[str, str], Kernel] = {("", "Gemm"): gemm, ("", "MatMul"): matmul}
