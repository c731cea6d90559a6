"""Relu, LeakyRelu, PRelu, Abs and HardSigmoid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

_ONE = "g (double[N, 3, 4] x) => (double[N, 3, 4] y) { y = %s (x) }"
_AXES = st.sets(st.integers(1, 2)).map(tuple)
_DIMS = (1, 3, 4)


def _negated(affine: Affine) -> Affine:
    return Affine(-affine.scale, affine.shift)


@settings(max_examples=30, deadline=None)
@given(
    axes=_AXES, seed=st.integers(0, 99), shift=st.booleans(), negative=st.booleans(), forward=st.booleans()
)
def test_relu_of_one_sign(harness, axes, seed, shift, negative, forward):
    affine = harness.affine(seed, _DIMS, axes, shift=shift, positive=True)
    affine = _negated(affine) if negative else affine
    node = harness.one(_ONE % "Relu")
    crossing = node.forward(affine) if forward else node.backward(affine)
    assert (crossing.op_type is None) == (not shift and not negative)


def test_relu_with_a_shift_that_varies_becomes_max(harness):
    node = harness.one(_ONE % "Relu")
    affine = harness.affine(1, _DIMS, (1,), positive=True)
    assert node.backward(affine).op_type == "Max"
    assert node.backward(_negated(affine)).op_type == "Min"


def test_relu_with_one_shift_becomes_clip(harness):
    node = harness.one(_ONE % "Relu")
    for affine, slot in ((Affine.of(2.0, 1.0, rank=3), 1), (Affine.of(-2.0, 1.0, rank=3), 2)):
        crossing = node.backward(affine)
        assert crossing.op_type == "Clip"
        assert {slot: c.shape for slot, c in crossing.constants.items()} == {slot: ()}


@pytest.mark.parametrize(
    ("dtype", "opset", "becomes"),
    [("double", 10, "Max"), ("double", 11, "Max"), ("double", 12, "Clip"), ("float", 11, "Clip")],
)
def test_relu_becomes_a_clip_that_onnxruntime_has(harness, dtype, opset, becomes):
    node = harness.one((_ONE % "Relu").replace("double", dtype), opset=opset)
    assert node.backward(Affine.of(2.0, 1.0, rank=3)).op_type == becomes


@pytest.mark.parametrize("way", ["backward", "forward"])
def test_relu_refuses_both_signs(harness, way):
    mixed = Affine.on_axis(np.array([1.0, -1.0, 2.0]), 0.0, axis=1, rank=3)
    with harness.refused("NF117"):
        getattr(harness.one(_ONE % "Relu"), way)(mixed)


def test_relu_zero_scale(harness):
    """A dead channel: backward it is a bound on both sides, forward its shift cannot be put in front."""
    node = harness.one(_ONE % "Relu")
    zero = Affine.on_axis(np.array([1.0, 0.0, 2.0]), np.array([1.0, -2.0, 3.0]), axis=1, rank=3)
    node.backward(zero)
    node.forward(zero.only_scale())
    with harness.refused("NF127"):
        node.forward(zero)


def test_relu_with_a_shift_needs_a_max_that_broadcasts(harness):
    with harness.refused("NF114"):
        harness.one(_ONE % "Relu", opset=7).backward(Affine.of(1.0, 1.0, rank=3))


def test_fold_through_relu(harness):
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = ConvTranspose (x, w)
        b = Relu (a)
        y = BatchNormalization (b, scale, bias, mean, var)
    }"""
    parameters = {**harness.weights(1, w=(3, 4, 1, 1)), **harness.batchnorm(2, 4)}
    harness.fold(text, parameters).kept("NF117")
    parameters["scale"] = np.abs(parameters["scale"])
    outcome = harness.fold(text, parameters)
    outcome.gone()
    assert outcome.operators == ["ConvTranspose", "Max"]


def test_an_activation_that_runs_inside_the_convolution_stays_one(harness):
    """Max in place of Relu is a pass of its own, and dearer than the BatchNormalization that it replaces."""
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = Conv (x, w)
        b = Relu (a)
        c = BatchNormalization (b, scale, bias, mean, var)
        y = Sigmoid (c)
    }"""
    parameters = {**harness.weights(1, w=(4, 3, 1, 1)), **harness.batchnorm(2, 4)}
    parameters["scale"] = np.abs(parameters["scale"])
    harness.fold(text, parameters).kept("NF122")


def test_leaky_relu_does_not_become_a_slow_prelu(harness):
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = ConvTranspose (x, w)
        b = LeakyRelu (a)
        c = Mul (b, scale)
        y = Sigmoid (c)
    }"""
    scale = np.array([1.0, -1.0, 2.0, -2.0]).reshape(4, 1, 1)
    harness.fold(text, {**harness.weights(1, w=(3, 4, 1, 1)), "scale": scale}).kept("NF122")


def test_fold_in_front_of_relu_into_the_next_convolution(harness):
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = BatchNormalization (x, scale, bias, mean, var)
        b = Relu (a)
        y = Conv (b, w)
    }"""
    parameters = {**harness.weights(1, w=(4, 3, 1, 1)), **harness.batchnorm(2, 3)}
    parameters["scale"] = np.abs(parameters["scale"])
    outcome = harness.fold(text, parameters)
    outcome.gone()
    assert outcome.operators == ["Max", "Conv"]


@settings(max_examples=30, deadline=None)
@given(axes=_AXES, seed=st.integers(0, 99), forward=st.booleans(), positive=st.booleans())
def test_leaky_relu_of_any_sign(harness, axes, seed, forward, positive):
    node = harness.one(_ONE % "LeakyRelu <alpha = 0.25>")
    affine = harness.affine(seed, _DIMS, axes, shift=False, positive=positive)
    crossing = node.forward(affine) if forward else node.backward(affine)
    if positive:
        assert crossing.op_type is None
    if crossing.op_type:
        assert crossing.attributes == {"alpha": None}


@pytest.mark.parametrize(("alpha", "forward_too"), [(0.0, True), (-0.5, False)])
def test_leaky_relu_with_a_slope_that_is_not_positive(harness, alpha, forward_too):
    node = harness.one(_ONE % f"LeakyRelu <alpha = {alpha:.1f}>")
    negative = harness.affine(1, _DIMS, (1,), shift=False, positive=True)
    node.backward(negative)
    with harness.refused("NF117"):
        node.backward(_negated(negative))
    if forward_too:
        with harness.refused("NF117"):
            node.forward(_negated(negative))
    else:
        node.forward(_negated(negative))


def test_leaky_relu_before_slopes_could_be_arrays(harness):
    node = harness.one(_ONE % "LeakyRelu <alpha = 0.25>", opset=6)
    node.backward(Affine.of(2.0, rank=3))
    with harness.refused("NF117"):
        node.backward(Affine.of(-2.0, rank=3))


@pytest.mark.parametrize("op", ["LeakyRelu", "Abs"])
@pytest.mark.parametrize("way", ["backward", "forward"])
def test_a_shift_does_not_cross(harness, op, way):
    with harness.refused("NF114"):
        getattr(harness.one(_ONE % op), way)(harness.affine(1, _DIMS, (1,), positive=True))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (4,), (3, 1), (3, 4), (1, 3, 1)]),
    axes=_AXES,
    seed=st.integers(0, 99),
    forward=st.booleans(),
)
def test_prelu_of_any_sign(harness, shape, axes, seed, forward):
    slope = np.random.default_rng(seed).uniform(0.1, 2.0, shape)
    node = harness.one("g (double[N, 3, 4] x) => (double[N, 3, 4] y) { y = PRelu (x, a) }", {"a": slope})
    affine = harness.affine(seed, _DIMS, axes, shift=False)
    if forward:
        node.forward(affine)
    else:
        node.backward(affine)


def test_prelu_with_a_zero_slope_where_the_scale_is_negative(harness):
    text = "g (double[N, 3, 4] x) => (double[N, 3, 4] y) { y = PRelu (x, a) }"
    affine = Affine.on_axis(np.array([1.0, -1.0, 2.0]), 0.0, axis=1, rank=3)
    harness.one(text, {"a": np.array([0.0, 0.5, 0.0]).reshape(3, 1)}).backward(affine)
    with harness.refused("NF117"):
        harness.one(text, {"a": np.array([0.5, 0.0, 0.5]).reshape(3, 1)}).backward(affine)


def test_prelu_with_a_computed_slope_takes_positive_scales_only(harness):
    node = harness.one("g (double[N, 3] x, double[3] a) => (double[N, 3] y) { y = PRelu (x, a) }")
    node.backward(harness.affine(1, (1, 3), (1,), shift=False, positive=True))
    with harness.refused("NF115"):
        node.backward(Affine.of(-1.0, rank=2))
    with harness.refused("NF114"):
        node.forward({1: Affine.of(2.0, rank=1)})


def test_abs(harness):
    node = harness.one(_ONE % "Abs")
    node.backward(harness.affine(1, _DIMS, (1,), shift=False, positive=True))
    node.forward(harness.affine(3, _DIMS, (1, 2), shift=False))
    with harness.refused("NF117"):
        node.backward(Affine.on_axis(np.array([1.0, -1.0, 2.0]), 0.0, axis=1, rank=3))


def test_hard_sigmoid_takes_a_uniform_affine_over(harness):
    node = harness.one(_ONE % "HardSigmoid <alpha = 0.25, beta = 0.5>")
    assert not node.forward(Affine.of(-2.0, 0.5, rank=3)).affines
    with harness.refused("NF110"):
        node.forward(harness.affine(1, _DIMS, (1,)))
    with harness.refused("NF111"):
        node.forward(Affine.of(1 / 3, rank=3))
    with harness.refused("NF114"):
        node.backward(Affine.of(2.0, rank=3))
