"""ReduceMean, ReduceSum, ReduceMax and ReduceMin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.planning.operators import TABLE

_DIMS = (2, 3, 4, 5)


def _node(harness, op, axes, keepdims, opset=20, dims="2, 3, 4, 5", attributes=""):
    rank = 4 if keepdims else 4 - len(axes)
    output = ", ".join("PQRS"[:rank])
    if opset >= 18:
        constants = {"axes": np.array(axes, dtype=np.int64)}
        call = f"{op} <keepdims = {keepdims}{attributes}> (x, axes)"
    else:
        constants = {}
        call = f"{op} <axes = {list(axes)}, keepdims = {keepdims}> (x)"
    return harness.one(
        f"g (double[{dims}] x) => (double[{output}] y) {{ y = {call} }}", constants, opset=opset
    )


_CASES = {
    "op": st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]),
    "reduced": st.sets(st.integers(-4, -1), min_size=1, max_size=3).map(sorted),
    "keepdims": st.integers(0, 1),
    "opset": st.sampled_from([12, 20]),
    "negative": st.booleans(),
    "seed": st.integers(0, 99),
}


@settings(max_examples=40, deadline=None)
@given(**_CASES)
def test_backward(harness, op, reduced, keepdims, opset, negative, seed):
    node = _node(harness, op, reduced, keepdims, opset)
    kept = [1 if axis - 4 in reduced else size for axis, size in enumerate(_DIMS)]
    dims = tuple(size for axis, size in enumerate(kept) if keepdims or axis - 4 not in reduced)
    affine = harness.affine(seed, dims, tuple(range(len(dims))), positive=True)
    affine = Affine(-affine.scale, affine.shift) if negative else affine
    crossing = node.backward(affine)
    assert (crossing.op_type is None) == (not negative or op in ("ReduceMean", "ReduceSum"))


@settings(max_examples=40, deadline=None)
@given(**_CASES)
def test_forward(harness, op, reduced, keepdims, opset, negative, seed):
    node = _node(harness, op, reduced, keepdims, opset)
    kept = tuple(axis for axis in range(4) if axis - 4 not in reduced)
    affine = harness.affine(seed, _DIMS, kept, positive=True)
    node.forward(Affine(-affine.scale, affine.shift) if negative else affine)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_forward_a_shift_along_the_reduced_axes_leaves_its_mean_or_sum(harness, op, keepdims):
    _node(harness, op, (-2, -1), keepdims).forward(harness.affine(1, _DIMS, (1, 3), scale=False))


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_forward_a_shift_along_the_reduced_axes_of_an_extreme(harness, op):
    with harness.refused("NF110"):
        _node(harness, op, (-1,), 1).forward(harness.affine(1, _DIMS, (3,), scale=False))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
def test_forward_a_scale_along_the_reduced_axes(harness, op):
    with harness.refused("NF110"):
        _node(harness, op, (-1,), 1).forward(harness.affine(1, _DIMS, (3,), shift=False, positive=True))


@pytest.mark.parametrize("way", ["backward", "forward"])
def test_both_signs_at_an_extreme(harness, way):
    with harness.refused("NF117"):
        getattr(_node(harness, "ReduceMax", (-1,), 1), way)(
            Affine.on_axis(np.array([1.0, -1.0, 2.0]), 0.0, axis=1, rank=4)
        )


@pytest.mark.parametrize("way", ["backward", "forward"])
def test_a_sum_of_unknown_length(harness, way):
    node = _node(harness, "ReduceSum", (-1,), 1, dims="2, 3, 4, L")
    getattr(node, way)(harness.affine(1, _DIMS, (1,), shift=False))
    with harness.refused("NF112"):
        getattr(node, way)(Affine.of(1.0, 1.0, rank=4))


def test_a_mean_of_unknown_length(harness):
    node = _node(harness, "ReduceMean", (-1,), 1, dims="2, 3, 4, L")
    node.backward(harness.affine(1, _DIMS, (1,)))
    node.forward(harness.affine(1, _DIMS, (1,)))


def test_no_axes_are_all_or_none(harness):
    text = "g (double[2, 3] x) => (double[P, Q] y) { y = ReduceSum%s (x) }"
    affine = harness.affine(1, (2, 3), (1,), scale=False)
    np.testing.assert_allclose(
        harness.one(text % "").forward(affine).affines[0].shift, 2 * affine.shift.sum()
    )
    noop = harness.one(text % " <noop_with_empty_axes = 1>").view
    assert TABLE["ReduceSum"].forward(noop, {0: affine}).affines[0].same_as(affine)


def test_axes_computed_at_run_time(harness):
    node = harness.one("g (double[2, 3] x, int64[1] axes) => (double[P, Q] y) { y = ReduceMean (x, axes) }")
    with harness.refused("NF114"):
        node.backward(Affine.of(2.0, rank=2))


def test_fold_through_a_mean_in_front_of_a_linear_layer(harness):
    """ReduceMean → BN → Gemm: the BN goes forward."""
    text = """g (double[N, 3, H, W] x) => (double[N, 5] y) {
        a = ReduceMean <keepdims = 0> (x, axes)
        b = BatchNormalization (a, scale, bias, mean, var)
        y = Gemm (b, w)
    }"""
    harness.fold(
        text,
        {**harness.weights(1, w=(3, 5)), **harness.batchnorm(2, 3), "axes": np.array([2, 3])},
    ).gone()
