"""GatherElements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array


def gather_elements(call: NodeCall) -> Sequence[Array]:
    """GatherElements: ``Y[…, i, …] = X[…, I[…, i, …], …]``, the index for the coordinate on ``axis``.

    X and I have the same rank; Y has the shape of I, which is no larger than X off the axis.
    ``onnx.reference`` takes at most 64 elements on the axis. https://onnx.ai/onnx/operators/onnx__GatherElements.html
    """
    x, index = call.tensor(0), call.tensor(1)
    if x.ndim != index.ndim or x.ndim == 0:
        raise call.misfit(f"an index {index.shape} of {x.shape}")
    axis = call.integer("axis", 0) % x.ndim
    size = x.shape[axis]
    if any(i > n for a, (i, n) in enumerate(zip(index.shape, x.shape, strict=True)) if a != axis):
        raise call.misfit(f"an index {index.shape} of {x.shape} on axis {axis}")
    if index.size and not (-size <= index.min() and index.max() < size):
        raise call.misfit(f"an index from {index.min()} to {index.max()} on an axis of size {size}")
    part = x[tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(index.shape))]
    return (np.take_along_axis(part, index.astype(np.int64), axis),)


KERNELS: dict[tuple[str, str], Kernel] = {("", "GatherElements"): gather_elements}
