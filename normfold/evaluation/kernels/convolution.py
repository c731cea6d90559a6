"""Conv and ConvTranspose of any spatial rank, as matrix products of bounded size, and Col2Im."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.deadline import check_deadline
from normfold.evaluation.dtypes import Array, working
from normfold.evaluation.kernels.windows import Windows, pad_spatial, resolve_windows

_CHUNK_ELEMENTS = 1 << 22
"""Elements of an unfolded input held at once (32 MiB in float64)."""

_CACHED_ELEMENTS = 1 << 15
"""Elements of an output that stay in the processor's cache while one tap after the other is added to them."""


def conv(call: NodeCall) -> Sequence[Array]:
    """Conv: ``Y[n, m, p] = B[m] + Σ_{c, k} W[m, c, k] · X[n, g(m)·C/G + c, p·stride + k·dilation − pad]``.

    X is [N, C, *S], W [M, C/G, *K], B [M]. https://onnx.ai/onnx/operators/onnx__Conv.html
    """
    return (convolve(call, call.tensor(0), call.tensor(1), call.optional(2)),)


def convolve(call: NodeCall, x: Array, w: Array, bias: Array | None) -> Array:
    """The convolution of a Conv-like node, in the operands' type."""
    dtype = x.dtype
    x, w = working(x), working(w)
    groups = call.integer("group", 1)
    kernel = call.integers("kernel_shape") or list(w.shape[2:])
    if x.ndim < 3 or x.ndim != w.ndim or tuple(kernel) != w.shape[2:]:
        raise call.misfit(f"shapes {x.shape} and {w.shape} do not fit")
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise call.misfit(f"{x.shape[1]} channels in {groups} groups do not fit a weight {w.shape}")
    windows = resolve_windows(call, x.shape[2:], kernel)
    y = np.empty((x.shape[0], w.shape[0], *windows.output), dtype=x.dtype)
    if y.size:
        padded = pad_spatial(x, windows, 0)
        if w.shape[1] == 1 and groups > 1:
            _depthwise(padded, w, windows, y)
        elif math.prod(windows.kernel) == 1:
            _pointwise(padded, w, groups, windows, y)
        else:
            _grouped(padded, w, groups, windows, y)
    if bias is not None:
        y += working(bias).reshape(-1, *[1] * (x.ndim - 2))
    return y.astype(dtype, copy=False)


def _depthwise(padded: Array, w: Array, windows: Windows, y: Array) -> None:
    """One input channel per group: a weighted sum of shifted inputs. W is [C·k, 1, *K]."""
    n, channels = padded.shape[:2]
    multiplier = w.shape[0] // channels
    split = y.reshape(n, channels, multiplier, *windows.output)
    weight = w.reshape(channels, multiplier, -1, *(1,) * len(windows.kernel))
    taps = list(itertools.product(*(windows.taps(axis) for axis in range(len(windows.kernel)))))
    wheres = [tuple(windows.tap_slice(axis, offset) for axis, offset in enumerate(tap)) for tap in taps]
    block = max(1, _CACHED_ELEMENTS // (multiplier * math.prod(windows.output)))
    for image, start in itertools.product(range(n), range(0, channels, block)):
        check_deadline()
        part = slice(start, start + block)
        source, total = padded[image, part, None], split[image, part]
        np.multiply(source[(slice(None), slice(None), *wheres[0])], weight[part, :, 0], out=total)
        product = np.empty_like(total)
        for index, where in enumerate(wheres[1:], 1):
            np.multiply(source[(slice(None), slice(None), *where)], weight[part, :, index], out=product)
            total += product


def _pointwise(padded: Array, w: Array, groups: int, windows: Windows, y: Array) -> None:
    """One tap: a product of each group's weight with the input at every stride."""
    check_deadline()
    taken = padded[(slice(None), slice(None), *(slice(None, None, step) for step in windows.strides))]
    n, channels = taken.shape[:2]
    matrix = w.reshape(groups, w.shape[0] // groups, channels // groups)
    np.matmul(
        matrix,
        taken.reshape(n, groups, channels // groups, -1),
        out=y.reshape(n, groups, w.shape[0] // groups, -1),
    )


def _grouped(padded: Array, w: Array, groups: int, windows: Windows, y: Array) -> None:
    """Unfold the input, a few rows of output at a time, and multiply by the weight of each group."""
    n, channels = padded.shape[:2]
    per_group, rank = channels // groups, len(windows.kernel)
    taps = math.prod(windows.kernel)
    view = _unfolded(padded, windows)
    matrix = w.reshape(groups, w.shape[0] // groups, per_group * taps)
    rows = max(1, _CHUNK_ELEMENTS // (channels * taps * math.prod(windows.output[1:])))
    taps_first = (0, *range(1 + rank, 1 + 2 * rank), *range(1, 1 + rank))
    for image in range(n):
        for start in range(0, windows.output[0], rows):
            check_deadline()
            stop = min(start + rows, windows.output[0])
            columns = view[image, :, start:stop].transpose(taps_first)
            product = np.matmul(matrix, columns.reshape(groups, per_group * taps, -1))
            y[image, :, start:stop] = product.reshape(-1, stop - start, *windows.output[1:])


def _unfolded(padded: Array, windows: Windows) -> Array:
    """The windows as a view, [N, C, *output, *kernel]; ``padded`` holds them all."""
    steps = padded.strides[2:]
    outer = (step * stride for step, stride in zip(steps, windows.strides, strict=True))
    inner = (step * dilation for step, dilation in zip(steps, windows.dilations, strict=True))
    shape = (*padded.shape[:2], *windows.output, *windows.kernel)
    return as_strided(padded, shape, (*padded.strides[:2], *outer, *inner), writeable=False)


def conv_transpose(call: NodeCall) -> Sequence[Array]:
    """ConvTranspose: ``Y[n, g·M/G + m, i·stride + k·dilation − pad] += W[c, m, k] · X[n, c, i]``.

    X is [N, C, *S], W [C, M/G, *K], B [M]. https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """
    x, w, bias = call.tensor(0), call.tensor(1), call.optional(2)
    dtype = x.dtype
    x, w = working(x), working(w)
    groups, rank = call.integer("group", 1), x.ndim - 2
    kernel = call.integers("kernel_shape") or list(w.shape[2:])
    if x.ndim < 3 or x.ndim != w.ndim or x.shape[1] != w.shape[0] or tuple(kernel) != w.shape[2:]:
        raise call.misfit(f"shapes {x.shape} and {w.shape} do not fit")
    if w.shape[0] % groups:
        raise call.refuse(f"{w.shape[0]} channels do not split into {groups} groups")
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    begin, output = _transposed_geometry(call, x.shape[2:], kernel, strides, dilations)
    n, per_group = x.shape[0], w.shape[1]
    full = [
        max((size - 1) * s + (k - 1) * d + 1, out + max(head, 0))
        for size, s, k, d, out, head in zip(
            x.shape[2:], strides, kernel, dilations, output, begin, strict=True
        )
    ]
    y = np.zeros((n, groups, per_group, *full), dtype=x.dtype)
    flat = x.reshape(n, groups, x.shape[1] // groups, -1)
    weight = w.reshape(groups, w.shape[0] // groups, per_group, -1)
    for index, tap in enumerate(itertools.product(*(range(k) for k in kernel))):
        check_deadline()
        where = tuple(
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, s, size in zip(tap, dilations, strides, x.shape[2:], strict=True)
        )
        product = np.matmul(weight[..., index].transpose(0, 2, 1), flat)
        y[(slice(None), slice(None), slice(None), *where)] += product.reshape(
            n, groups, per_group, *x.shape[2:]
        )
    y = y.reshape(n, groups * per_group, *full)
    for axis, head in enumerate(begin):
        if head < 0:
            widths = [(0, 0)] * y.ndim
            widths[axis + 2] = (-head, 0)
            y = np.pad(y, widths)
    crop = tuple(slice(max(head, 0), max(head, 0) + out) for head, out in zip(begin, output, strict=True))
    y = y[(slice(None), slice(None), *crop)]
    if bias is not None:
        y = y + working(bias).reshape(-1, *[1] * rank)
    return (np.ascontiguousarray(y.astype(dtype, copy=False)),)


def col2im(call: NodeCall) -> Sequence[Array]:
    """Col2Im: the sum of the columns that Conv would unfold an image into, each where it was taken from.

    The columns are [N, C·K, L], the result [N, C, *S]: image_shape is S, block_shape K, and L counts
    the windows. https://onnx.ai/onnx/operators/onnx__Col2Im.html
    """
    columns = call.tensor(0)
    image = [int(size) for size in call.tensor(1)]
    kernel = [int(size) for size in call.tensor(2)]
    windows = resolve_windows(call, image, kernel)
    taps = math.prod(kernel)
    if min(windows.begin) < 0:
        raise call.refuse("negative pads")
    if columns.ndim != 3 or columns.shape[1] % taps or columns.shape[2] != math.prod(windows.output):
        raise call.misfit(f"columns {columns.shape} of an image {tuple(image)} in blocks {tuple(kernel)}")
    split = working(columns).reshape(columns.shape[0], -1, taps, *windows.output)
    sizes = [max(windows.reach(axis), windows.begin[axis] + size) for axis, size in enumerate(image)]
    padded = np.zeros((*split.shape[:2], *sizes), split.dtype)
    for index, tap in enumerate(itertools.product(*(windows.taps(axis) for axis in range(len(kernel))))):
        check_deadline()
        where = (windows.tap_slice(axis, offset) for axis, offset in enumerate(tap))
        padded[(slice(None), slice(None), *where)] += split[:, :, index]
    inside = (slice(head, head + size) for head, size in zip(windows.begin, image, strict=True))
    y = padded[(slice(None), slice(None), *inside)]
    return (np.ascontiguousarray(y.astype(columns.dtype, copy=False)),)


def _transposed_geometry(
    call: NodeCall,
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """(pad begin, output size) per axis, from pads, auto_pad, output_padding and output_shape."""
    rank = len(spatial)
    extra = call.integers("output_padding") or [0] * rank
    pads = call.integers("pads") or [0] * 2 * rank
    wished = call.integers("output_shape")
    auto_pad = call.text("auto_pad", "NOTSET") or "NOTSET"
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise call.refuse(f"auto_pad {auto_pad!r}")
    if wished is not None:
        wished = wished[-rank:]
    begin, output = [], []
    for axis, size in enumerate(spatial):
        natural = (size - 1) * strides[axis] + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        if wished is None and not auto_pad.startswith("SAME"):
            head, tail = (0, 0) if auto_pad == "VALID" else (pads[axis], pads[axis + rank])
            begin.append(head)
            output.append(natural - head - tail)
            continue
        out = wished[axis] if wished is not None else size * strides[axis]
        if wished is None and natural < out:
            raise call.refuse("auto_pad SAME with windows that leave gaps")
        total = max(natural - out, 0)
        begin.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
        output.append(out)
    return begin, output


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "Col2Im"): col2im,
    ("", "Conv"): conv,
    ("", "ConvTranspose"): conv_transpose,
}
