"""MaxPool, AveragePool and their global forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.evaluation import evaluate_node
from normfold.planning.operators import TABLE

_WAYS = pytest.mark.parametrize("way", ["backward", "forward"])
_ANY_WAY = st.sampled_from(["backward", "forward"])


def _pool(harness, call, size="H", opset=20):
    text = f"g (double[N, 3, {size}] x) => (double[N, 3, P] y) {{ y = {call} (x) }}"
    return harness.one(text, opset=opset)


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    ceil=st.integers(0, 1),
    seed=st.integers(0, 99),
    way=_ANY_WAY,
)
def test_max_pool(harness, kernel, stride, pad, ceil, seed, way):
    """onnx.reference fails on some of these: with our kernel, which tests/evaluation holds to torch."""
    pad = min(pad, kernel - 1)
    attributes = f"kernel_shape = [{kernel}], strides = [{stride}], pads = [{pad}, {pad}], ceil_mode = {ceil}"
    view = _pool(harness, f"MaxPool <{attributes}>", size="7").view
    affine = harness.affine(seed, (1, 3, 1), (1,), positive=True)
    crossing = getattr(TABLE["MaxPool"], way)(view, {0: affine})
    assert crossing.affines[0].same_as(affine) and not crossing.edits_node

    def run(x):
        return evaluate_node(view.node, [x], {"": view.opset})[0]

    np.testing.assert_allclose(run(affine.apply(_input())), affine.apply(run(_input())), atol=1e-14)


@_WAYS
def test_max_pool_negative_scale(harness, way):
    with harness.refused("NF117"):
        getattr(_pool(harness, "MaxPool <kernel_shape = [2]>"), way)(Affine.of(-1.0, rank=3))


@_WAYS
def test_max_pool_whose_indices_are_read(harness, way):
    node = harness.one(
        """g (double[N, 3, H] x) => (double[N, 3, P] y, int64[N, 3, P] i) {
            y, i = MaxPool <kernel_shape = [2]> (x)
        }"""
    )
    with harness.refused("NF114"):
        getattr(node, way)(Affine.of(2.0, rank=3))


@_WAYS
@pytest.mark.parametrize("op", ["MaxPool <kernel_shape = [2]>", "AveragePool <kernel_shape = [2]>"])
def test_an_affine_that_varies_over_space(harness, op, way):
    with harness.refused("NF110"):
        getattr(_pool(harness, op, size="7"), way)(harness.affine(1, (1, 1, 6), (2,), positive=True))


@_WAYS
def test_global_max_pool(harness, way):
    node = harness.one("g (double[N, 3, H, W] x) => (double[N, 3, 1, 1] y) { y = GlobalMaxPool (x) }")
    getattr(node, way)(harness.affine(1, (1, 3, 1, 1), (1,), positive=True))
    with harness.refused("NF117"):
        getattr(node, way)(Affine.of(-1.0, rank=4))


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    include=st.integers(0, 1),
    seed=st.integers(0, 99),
    way=_ANY_WAY,
)
def test_average_pool_scale(harness, kernel, stride, pad, include, seed, way):
    pad = min(pad, kernel - 1)
    call = (
        f"AveragePool <kernel_shape = [{kernel}], strides = [{stride}], pads = [{pad}, {pad}],"
        f" count_include_pad = {include}>"
    )
    getattr(_pool(harness, call), way)(harness.affine(seed, (1, 3, 1), (1,), shift=False), {"x": _input()})


def _input() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((2, 3, 7))


@_WAYS
@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [2]",
        "kernel_shape = [3], pads = [1, 1]",
        'kernel_shape = [3], auto_pad = "VALID", count_include_pad = 1',
        "kernel_shape = [3], pads = [0, 0], count_include_pad = 1",
        "kernel_shape = [3], strides = [2], ceil_mode = 1",
        "kernel_shape = [2], strides = [2], pads = [1, 0], ceil_mode = 1",
    ],
)
def test_average_pool_shift(harness, attributes, way):
    node = _pool(harness, f"AveragePool <{attributes}>", size="7")
    getattr(node, way)(harness.affine(1, (1, 3, 1), (1,)), {"x": _input()})


_COUNTED = "kernel_shape = [3], pads = [1, 1], count_include_pad = 1"
_COUNTED_SAME = 'kernel_shape = [3], auto_pad = "SAME_UPPER", count_include_pad = 1'
_OVERHANGING = "kernel_shape = [2], strides = [2], ceil_mode = 1"


@pytest.mark.parametrize(
    ("attributes", "size", "way"),
    [
        (_COUNTED, "7", "backward"),
        (_COUNTED, "H", "forward"),
        (_COUNTED_SAME, "7", "backward"),
        (_OVERHANGING, "7", "backward"),
        (_OVERHANGING, "7", "forward"),
        (_OVERHANGING, "H", "forward"),
        (f"{_OVERHANGING}, pads = [1, 0]", "6", "backward"),
    ],
)
def test_average_pool_shift_that_padding_would_miss(harness, attributes, size, way):
    with harness.refused("NF116"):
        getattr(_pool(harness, f"AveragePool <{attributes}>", size), way)(Affine.of(1.0, 1.0, rank=3))


@pytest.mark.parametrize("attributes", [_COUNTED, _COUNTED_SAME, f"{_COUNTED}, strides = [2]"])
def test_average_pool_that_counts_padding_leaves_a_map(harness, attributes):
    node = _pool(harness, f"AveragePool <{attributes}>", size="7")
    left = node.forward(harness.affine(1, (1, 3, 1), (1,)), {"x": _input()}).affines[0]
    assert left.shift_axes == (1, 2)
    assert left.scale_axes == (1,)


def test_average_pool_before_it_said_what_it_counts(harness):
    call = "AveragePool <kernel_shape = [3], pads = [1, 1]>"
    with harness.refused("NF116"):
        _pool(harness, call, opset=6).backward(Affine.of(1.0, 1.0, rank=3))


def test_global_average_pool(harness):
    node = harness.one("g (double[N, 3, 5] x) => (double[N, 3, 1] y) { y = GlobalAveragePool (x) }")
    node.backward(harness.affine(1, (1, 3, 1), (1,)))
    affine = harness.affine(2, (1, 3, 1), (1,), shift=False)
    node.forward(Affine(affine.scale, harness.affine(3, (1, 3, 5), (1, 2)).shift))
    with harness.refused("NF110"):
        node.forward(harness.affine(4, (1, 1, 5), (2,), shift=False))


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_fold_through_a_pool(harness, pool):
    text = f"""g (double[N, 3, H, W] x) => (double[N, 4, P, Q] y) {{
        a = Conv (x, w)
        b = {pool} <kernel_shape = [2, 2], strides = [2, 2]> (a)
        y = BatchNormalization (b, scale, bias, mean, var)
    }}"""
    parameters = {**harness.weights(1, w=(4, 3, 1, 1)), **harness.batchnorm(2, 4)}
    if pool == "MaxPool":
        parameters["scale"] = np.abs(parameters["scale"])
    harness.fold(text, parameters, sizes={"H": 6, "W": 4, "P": 3, "Q": 2}).gone()
