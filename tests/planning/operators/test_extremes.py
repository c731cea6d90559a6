"""Max, Min and Clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.planning.operators import TABLE

_DIMS = (1, 3, 4)
_AXES = st.sets(st.integers(1, 2)).map(tuple)


def _negated(affine: Affine) -> Affine:
    return Affine(-affine.scale, affine.shift)


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["Max", "Min"]),
    bound=st.sampled_from([(), (4,), (3, 1), (1, 3, 4)]),
    axes=_AXES,
    negative=st.booleans(),
    forward=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_constant_bound_follows(harness, op, bound, axes, negative, forward, seed):
    node = harness.one(
        f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {op} (x, c) }}", harness.weights(seed, c=bound)
    )
    affine = harness.affine(seed, _DIMS, axes, positive=True)
    affine = _negated(affine) if negative else affine
    crossing = node.forward(affine) if forward else node.backward(affine)
    assert crossing.op_type == ({"Max": "Min", "Min": "Max"}[op] if negative else None)


@settings(max_examples=10, deadline=None)
@given(negative=st.booleans(), forward=st.booleans(), seed=st.integers(0, 99))
def test_computed_operands_all_carry_the_same(harness, negative, forward, seed):
    node = harness.one("g (double[N, 3, 4] a, double[3, 4] b) => (double[N, 3, 4] y) { y = Max (a, b) }")
    affine = harness.affine(seed, _DIMS, (1, 2), positive=True)
    affine = _negated(affine) if negative else affine
    if forward:
        node.forward({0: affine, 1: Affine.of(affine.scale[0], affine.shift[0], rank=2)})
    else:
        node.backward(affine)


def test_operands_that_bring_different_affines(harness):
    node = harness.one("g (double[N, 3] a, double[N, 3] b) => (double[N, 3] y) { y = Max (a, b) }")
    with harness.refused("NF114"):
        node.forward({0: Affine.of(2.0, rank=2), 1: Affine.of(3.0, rank=2)})
    with harness.refused("NF114"):
        node.forward({0: Affine.of(2.0, rank=2)})


@pytest.mark.parametrize("way", ["backward", "forward"])
def test_both_signs(harness, way):
    node = harness.one("g (double[N, 3] x) => (double[N, 3] y) { y = Max (x, c) }", {"c": np.array(1.0)})
    with harness.refused("NF117"):
        getattr(node, way)(Affine.on_axis(np.array([1.0, -1.0, 2.0]), 0.0, axis=1, rank=2))


def test_forward_a_zero_scale_cannot_be_taken_off_the_constant(harness):
    node = harness.one("g (double[N, 3] x) => (double[N, 3] y) { y = Max (x, c) }", {"c": np.array(1.0)})
    zero = Affine.on_axis(np.array([1.0, 0.0, 2.0]), 0.5, axis=1, rank=2)
    node.backward(zero)
    with harness.refused("NF127"):
        node.forward(zero)


def test_a_broadcast_operand_does_not_take_what_varies_there(harness):
    node = harness.one("g (double[N, 1] a, double[N, 3] b) => (double[N, 3] y) { y = Max (a, b) }")
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3), (1,), positive=True))


_BOUNDS = {
    "both": ("Clip (x, lo, hi)", {"lo": np.array(-0.5), "hi": np.array(0.75)}),
    "lower": ("Clip (x, lo)", {"lo": np.array(-0.5)}),
    "upper": ("Clip (x, , hi)", {"hi": np.array(0.75)}),
    "none": ("Clip (x)", {}),
}


@settings(max_examples=40, deadline=None)
@given(
    bounds=st.sampled_from(sorted(_BOUNDS)),
    negative=st.booleans(),
    forward=st.booleans(),
    seed=st.integers(0, 99),
)
def test_clip_with_a_uniform_affine(harness, bounds, negative, forward, seed):
    call, constants = _BOUNDS[bounds]
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {call} }}", constants)
    affine = harness.affine(seed, _DIMS, (), positive=True)
    affine = _negated(affine) if negative else affine
    if forward:
        node.forward(affine)
    else:
        node.backward(affine)


@pytest.mark.parametrize("way", ["backward", "forward"])
@pytest.mark.parametrize("negative", [False, True])
def test_clip_with_one_lower_bound_becomes_max(harness, way, negative):
    call, constants = _BOUNDS["lower"]
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {call} }}", constants)
    affine = harness.affine(1, _DIMS, (1,), positive=True)
    crossing = getattr(node, way)(_negated(affine) if negative else affine)
    assert crossing.op_type == ("Min" if negative else "Max")


@pytest.mark.parametrize("bounds", ["both", "upper"])
def test_clip_with_an_upper_bound_takes_no_affine_that_varies(harness, bounds):
    call, constants = _BOUNDS[bounds]
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {call} }}", constants)
    with harness.refused("NF110"):
        node.backward(harness.affine(1, _DIMS, (1,), positive=True))


def test_clip_with_one_lower_bound_refuses_both_signs(harness):
    call, constants = _BOUNDS["lower"]
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {call} }}", constants)
    with harness.refused("NF117"):
        node.backward(Affine.on_axis(np.array([1.0, -1.0, 2.0]), 0.0, axis=1, rank=3))


def test_clip_with_bounds_the_wrong_way_round(harness):
    """min(max(x, 1), -1) is -1 for every x; exchanged bounds would not be."""
    node = harness.one(
        "g (double[N, 3] x) => (double[N, 3] y) { y = Clip (x, lo, hi) }",
        {"lo": np.array(1.0), "hi": np.array(-1.0)},
    )
    with harness.refused("NF114"):
        node.backward(Affine.of(-2.0, rank=2))


def test_clip_zero_scale(harness):
    call, constants = _BOUNDS["both"]
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {call} }}", constants)
    for way in (node.backward, node.forward):
        with harness.refused("NF127"):
            way(Affine.of(0.0, 1.0, rank=3))


def test_clip_with_a_computed_bound(harness):
    node = harness.one("g (double[N, 3] x, double lo) => (double[N, 3] y) { y = Clip (x, lo) }")
    with harness.refused("NF115"):
        node.backward(Affine.of(2.0, rank=2))
    with harness.refused("NF115"):
        node.forward({1: Affine.of(2.0, rank=0)})


def test_an_infinite_bound_stays_none(harness):
    node = harness.one(
        "g (double[N, 3] x) => (double[N, 3] y) { y = Clip (x, lo, hi) }",
        {"lo": np.array(-1.0), "hi": np.array(np.inf)},
    )
    assert {
        slot: c.compute() for slot, c in node.backward(Affine.of(2.0, 3.0, rank=2)).constants.items()
    } == {1: 1.0}
    turned = node.backward(Affine.of(-2.0, 3.0, rank=2)).constants
    assert {slot: c.compute() for slot, c in turned.items()} == {1: -np.finfo(np.float64).max, 2: 5.0}


@pytest.mark.parametrize("scale", [2.0, -2.0])
def test_clip_attributes_before_opset_11(harness, scale):
    """onnx.reference has no Clip-6 in double: by hand."""
    view = harness.one(
        "g (float[N, 3] x) => (float[N, 3] y) { y = Clip <min = -0.5, max = 0.75> (x) }", opset=10
    ).view
    attributes = TABLE["Clip"].backward(view, {0: Affine.of(scale, 4.0, rank=2)}).attributes
    low, high = sorted((scale * -0.5 + 4.0, scale * 0.75 + 4.0))
    assert attributes == {"min": low, "max": high}


def test_clip_attributes_that_would_round(harness):
    node = harness.one(
        "g (double[N, 3] x) => (double[N, 3] y) { y = Clip <min = -0.5, max = 0.75> (x) }", opset=10
    )
    with harness.refused("NF111"):
        node.backward(Affine.of(1 / 3, rank=2))


def test_hardswish_with_a_scalar_affine(harness):
    """Mobile OCR: ``x · Clip(x + 3, 0, 6) / 6`` behind a convolution, then a learnable scale."""
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = Conv (x, w)
        b = Add (a, three)
        c = Clip (b, zero, six)
        d = Mul (a, c)
        e = Div (d, six)
        f = Mul (e, s)
        y = Conv (f, v)
    }"""
    constants = {
        **harness.weights(1, w=(4, 3, 1, 1), v=(4, 4, 3, 3)),
        "zero": np.array(0.0),
        "three": np.array(3.0),
        "six": np.array(6.0),
        "s": np.array(1.7),
    }
    outcome = harness.fold(text.replace("double[N, 4, H, W] y", "double[N, 4, P, Q] y"), constants)
    assert outcome.affines == ["Add"]
