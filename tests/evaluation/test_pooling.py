"""Pools against a window-by-window loop, and against torch where it has the case."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normfold.evaluation import NotCovered

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def pools(draw):
    rank = draw(st.integers(1, 3))
    sizes = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel = sizes(1, 3)
    return (
        {
            "kernel_shape": kernel,
            "strides": sizes(1, 3),
            "dilations": sizes(1, 2),
            "pads": [draw(st.integers(0, k - 1)) for k in kernel * 2],
            "ceil_mode": draw(st.integers(0, 1)),
        },
        sizes(5, 7),
        draw(st.integers(0, 2**16)),
    )


def _windows(attributes, spatial):
    """Positions of every window's cells in the unpadded input, and whether each is inside the pads."""
    rank = len(spatial)
    pads, per_axis = attributes["pads"], []
    for axis, size in enumerate(spatial):
        kernel, stride, dilation = (attributes[n][axis] for n in ("kernel_shape", "strides", "dilations"))
        head, tail = pads[axis], pads[axis + rank]
        free = size + head + tail - (kernel - 1) * dilation - 1
        count = free // stride + 1
        if attributes["ceil_mode"] and free % stride and count * stride < size + head:
            count += 1
        per_axis.append([[o * stride - head + k * dilation for k in range(kernel)] for o in range(count)])
    return per_axis


def _loop(x, attributes, reduce):
    spatial = x.shape[2:]
    per_axis = _windows(attributes, spatial)
    out = np.zeros((*x.shape[:2], *(len(windows) for windows in per_axis)))
    for position in itertools.product(*(range(len(windows)) for windows in per_axis)):
        cells = list(itertools.product(*(w[p] for w, p in zip(per_axis, position, strict=True))))
        out[(slice(None), slice(None), *position)] = reduce(x, cells, spatial, attributes)
    return out


def _inside(cell, spatial):
    return all(0 <= c < s for c, s in zip(cell, spatial, strict=True))


def _maximum(x, cells, spatial, _):
    return np.max([x[(..., *cell)] for cell in cells if _inside(cell, spatial)], axis=0)


def _average(x, cells, spatial, attributes):
    values = [x[(..., *cell)] for cell in cells if _inside(cell, spatial)]
    count = len(values)
    if attributes.get("count_include_pad"):
        rank, pads = len(spatial), attributes["pads"]
        count = sum(
            all(-pads[a] <= c < spatial[a] + pads[a + rank] for a, c in enumerate(cell)) for cell in cells
        )
    return np.sum(values, axis=0) / count


def _has_empty_windows(attributes, spatial):
    return any(
        not any(0 <= c < size for c in window)
        for windows, size in zip(_windows(attributes, spatial), spatial, strict=True)
        for window in windows
    )


@SETTINGS
@given(pool=pools())
def test_max_pool_of_any_geometry_equals_a_loop(evaluate, pool):
    attributes, spatial, seed = pool
    if _has_empty_windows(attributes, spatial):
        return
    x = np.random.default_rng(seed).standard_normal((2, 2, *spatial))
    y, indices = evaluate("MaxPool", [x], outputs=2, **attributes)
    np.testing.assert_array_equal(y, _loop(x, attributes, _maximum))
    np.testing.assert_array_equal(x.reshape(-1)[indices], y)


@SETTINGS
@given(pool=pools(), include=st.integers(0, 1))
def test_average_pool_of_any_geometry_equals_a_loop(evaluate, pool, include):
    attributes, spatial, seed = pool
    if _has_empty_windows(attributes, spatial):
        return
    attributes = {**attributes, "count_include_pad": include}
    x = np.random.default_rng(seed).standard_normal((1, 2, *spatial))
    (y,) = evaluate("AveragePool", [x], **attributes)
    np.testing.assert_allclose(y, _loop(x, attributes, _average), rtol=1e-12, atol=1e-14)


@pytest.mark.torch
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool_with_overhang_equals_torch(evaluate, include, ceil_mode):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 6))
    (y,) = evaluate(
        "AveragePool",
        [x],
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        ceil_mode=ceil_mode,
        count_include_pad=include,
    )
    expected = torch.nn.functional.avg_pool2d(
        torch.tensor(x), 3, 2, 1, ceil_mode=bool(ceil_mode), count_include_pad=bool(include)
    )
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12)


@pytest.mark.torch
def test_max_pool_indices_equal_torch(evaluate):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 4, (2, 2, 6, 7)).astype(np.float64)
    y, indices = evaluate(
        "MaxPool", [x], outputs=2, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 2]
    )
    planes = np.arange(4).reshape(2, 2, 1, 1) * 42
    expected, positions = torch.nn.functional.max_pool2d(
        torch.tensor(x), (3, 2), (2, 1), (1, 1), (1, 2), return_indices=True
    )
    np.testing.assert_array_equal(y, expected.numpy())
    np.testing.assert_array_equal(indices, positions.numpy() + planes)


def test_max_pool_column_major_indices_equal_onnxruntime(evaluate, runtime):
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)
    attributes = {"kernel_shape": [2, 2], "storage_order": 1}
    _, indices = evaluate("MaxPool", [x], outputs=2, **attributes)
    np.testing.assert_array_equal(indices, runtime("MaxPool", [x], outputs=2, **attributes)[1])


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2), (2, 2)])
def test_pool_auto_pad_equals_onnxruntime(evaluate, runtime, op_type, auto_pad, kernel, stride):
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 6)).astype(np.float32)
    attributes = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "auto_pad": auto_pad}
    (y,) = evaluate(op_type, [x], **attributes)
    np.testing.assert_allclose(y, runtime(op_type, [x], **attributes)[0], rtol=1e-5, atol=1e-6)


def test_pool_same_with_dilations_is_not_covered(evaluate):
    with pytest.raises(NotCovered, match="SAME with dilations"):
        evaluate("MaxPool", [np.ones((1, 1, 5))], kernel_shape=[2], dilations=[2], auto_pad="SAME_UPPER")


def test_max_pool_of_integers_pads_with_the_lowest_value(evaluate):
    x = np.full((1, 1, 3), -100, np.int8)
    (y,) = evaluate("MaxPool", [x], kernel_shape=[2], pads=[1, 0])
    np.testing.assert_array_equal(y, np.full((1, 1, 3), -100, np.int8))


@pytest.mark.parametrize("spatial", [(5,), (4, 3), (2, 3, 4)])
def test_global_pools_reduce_all_spatial_axes(evaluate, spatial):
    x = np.random.default_rng(0).standard_normal((2, 3, *spatial))
    flat = x.reshape(2, 3, -1)
    for op_type, expected in (
        ("GlobalAveragePool", flat.mean(2)),
        ("GlobalMaxPool", flat.max(2)),
        ("GlobalLpPool", np.sqrt((flat**2).sum(2))),
    ):
        (y,) = evaluate(op_type, [x])
        assert y.shape == (2, 3, *[1] * len(spatial))
        np.testing.assert_allclose(y.reshape(2, 3), expected, rtol=1e-13)
