"""Instance, group, layer, RMS and mean-variance normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.planning.operators import TABLE

_SEED = st.integers(0, 99)
_PART = st.sampled_from([(True, True), (True, False), (False, True)])


def _instance(harness, seed=1):
    return harness.one(
        "g (double[N, 3, 4, 5] x) => (double[N, 3, 4, 5] y) { y = InstanceNormalization (x, g, b) }",
        harness.weights(seed, g=(3,), b=(3,)),
    )


def _group(harness, opset=21, seed=1):
    size, more = (6, ", stash_type = 11") if opset >= 21 else (3, "")
    call = f"GroupNormalization <num_groups = 3{more}> (x, g, b)"
    return harness.one(
        f"g (double[N, 6, 4, 5] x) => (double[N, 6, 4, 5] y) {{ y = {call} }}",
        harness.weights(seed, g=(size,), b=(size,)),
        opset=opset,
    )


def _layer(harness, op="LayerNormalization", axis=-2, bias=True, shape=(4, 5), seed=1, outputs="y", opset=23):
    weights = harness.weights(seed, g=shape, **({"b": shape} if bias else {}))
    more = ", float[N, 3, 1, 1] m" if outputs != "y" else ""
    call = f"{outputs} = {op} <axis = {axis}> (x, g{', b' if bias else ''})"
    return harness.one(
        f"g (double[N, 3, 4, 5] x) => (double[N, 3, 4, 5] y{more}) {{ {call} }}", weights, opset=opset
    )


@settings(max_examples=15, deadline=None)
@given(part=_PART, seed=_SEED)
def test_instance_norm_takes_what_varies_on_channels(harness, part, seed):
    affine = harness.affine(seed, (1, 3, 1, 1), (1,), scale=part[0], shift=part[1])
    assert not _instance(harness, seed).backward(affine).affines


@pytest.mark.parametrize("what", ["scale", "shift"])
def test_instance_norm_has_no_parameters_over_space(harness, what):
    other = {"scale": "shift", "shift": "scale"}[what]
    with harness.refused("NF110"):
        _instance(harness).backward(harness.affine(1, (1, 1, 4, 1), (2,), **{other: False}))


def test_instance_norm_swallows_a_shift_that_is_uniform_over_space(harness):
    assert not _instance(harness).forward(harness.affine(1, (1, 3, 1, 1), (1,), scale=False)).affines


def test_instance_norm_does_not_swallow_a_shift_that_varies_over_space(harness):
    with harness.refused("NF114"):
        _instance(harness).forward(harness.affine(1, (1, 1, 4, 1), (2,), scale=False))


@pytest.mark.parametrize("norm", [_instance, _group, _layer])
def test_a_scale_in_front_changes_what_epsilon_means(harness, norm):
    with harness.refused("NF114"):
        norm(harness).forward(Affine.of(2.0, rank=4))


@settings(max_examples=15, deadline=None)
@given(part=_PART, seed=_SEED)
def test_group_norm_21_takes_what_varies_on_channels(harness, part, seed):
    _group(harness, 21, seed).backward(harness.affine(seed, (1, 6, 1, 1), (1,), scale=part[0], shift=part[1]))


@settings(max_examples=10, deadline=None)
@given(part=_PART, seed=_SEED)
def test_group_norm_18_takes_what_is_equal_within_each_group(harness, part, seed):
    """onnx.reference expands GroupNormalization-18 in float32: compare the parameters."""
    affine = harness.affine(seed, (1, 3, 1, 1), (1,), scale=part[0], shift=part[1])
    wide = Affine.of(
        *(np.repeat(np.broadcast_to(a, (1, 3, 1, 1)), 2, axis=1) for a in (affine.scale, affine.shift)),
        rank=4,
    )
    view = _group(harness, 18, seed).view
    constants = TABLE["GroupNormalization"].backward(view, {0: wide}).constants
    scale, shift = affine.channel(1, 3)
    if 1 in constants:
        np.testing.assert_allclose(constants[1].compute(), view.array(1) * scale)
    np.testing.assert_allclose(constants[2].compute(), view.array(2) * scale + shift)


def test_group_norm_18_has_one_parameter_per_group(harness):
    with harness.refused("NF110"):
        _group(harness, 18).backward(harness.affine(1, (1, 6, 1, 1), (1,)))


def test_group_norm_swallows_a_shift_that_is_equal_within_each_group(harness):
    shift = np.repeat(np.array([1.0, -2.0, 3.0]), 2)
    assert not _group(harness).forward(Affine.on_axis(1.0, shift, axis=1, rank=4)).affines
    with harness.refused("NF114"):
        _group(harness).forward(harness.affine(1, (1, 6, 1, 1), (1,), scale=False))
    with harness.refused("NF114"):
        _group(harness).forward(harness.affine(1, (1, 1, 4, 1), (2,), scale=False))


@settings(max_examples=25, deadline=None)
@given(
    part=_PART,
    axis=st.sampled_from([-1, -2, 1]),
    bias=st.booleans(),
    axes=st.sets(st.integers(1, 3)),
    seed=_SEED,
)
def test_layer_norm_takes_what_varies_on_the_normalised_axes(harness, part, axis, bias, axes, seed):
    shape = (3, 4, 5)[axis % 4 - 1 :]
    node = _layer(harness, axis=axis, bias=bias, shape=shape, seed=seed)
    affine = harness.affine(
        seed, (1, 3, 4, 5), tuple(a for a in axes if a >= axis % 4), scale=part[0], shift=part[1]
    )
    constants = node.backward(affine).constants
    assert all(constant.shape == shape for constant in constants.values())
    assert not (part == (True, False) and not bias and 2 in constants)


def test_layer_norm_has_no_parameters_in_front_of_its_axis(harness):
    with harness.refused("NF110"):
        _layer(harness).backward(harness.affine(1, (1, 3, 1, 1), (1,)))


def test_layer_norm_grows_small_parameters_together(harness):
    constants = _layer(harness, shape=(5,)).backward(harness.affine(1, (1, 1, 4, 5), (2, 3))).constants
    assert constants[1].shape == constants[2].shape == (4, 5)


def test_layer_norm_swallows_a_shift_that_is_uniform_where_it_normalises(harness):
    assert not _layer(harness).forward(harness.affine(1, (1, 3, 1, 1), (1,), scale=False)).affines
    with harness.refused("NF114"):
        _layer(harness).forward(harness.affine(1, (1, 1, 1, 5), (3,), scale=False))


def test_layer_norm_whose_mean_is_read(harness):
    view = _layer(harness, outputs="y, m").view
    with harness.refused("NF114"):
        TABLE["LayerNormalization"].forward(view, {0: Affine.of(1.0, 1.0, rank=4)})
    with harness.refused("NF114"):
        TABLE["LayerNormalization"].backward(view, {1: Affine.of(1.0, 1.0, rank=4)})


def test_rms_norm_takes_a_scale_only(harness):
    node = _layer(harness, op="RMSNormalization", bias=False)
    node.backward(harness.affine(1, (1, 1, 4, 5), (2, 3), shift=False))
    with harness.refused("NF118"):
        node.backward(harness.affine(1, (1, 1, 4, 5), (2, 3)))
    with harness.refused("NF114"):
        node.forward(Affine.of(1.0, 1.0, rank=4))


def test_mean_variance_norm(harness):
    """onnx.reference expands it with float32 constants: by hand."""
    node = harness.one(
        "g (double[N, 3, 4, 5] x) => (double[N, 3, 4, 5] y) { y = MeanVarianceNormalization (x) }"
    )
    shift = harness.affine(1, (1, 3, 1, 1), (1,), scale=False)
    crossing = TABLE["MeanVarianceNormalization"].forward(node.view, {0: shift})
    assert not crossing.affines and not crossing.edits_node
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    first, second = (v - v.mean(axis=(0, 2, 3), keepdims=True) for v in (x, shift.apply(x)))
    np.testing.assert_allclose(first, second, atol=1e-14)
    with harness.refused("NF114"):
        node.forward(harness.affine(1, (1, 1, 4, 1), (2,), scale=False))
    with harness.refused("NF114"):
        node.backward(Affine.of(2.0, rank=4))


def test_parameters_computed_at_run_time(harness):
    node = harness.one(
        """g (double[N, 3, 4] x, double[3] g, double[3] b) => (double[N, 3, 4] y) {
            y = InstanceNormalization (x, g, b)
        }"""
    )
    with harness.refused("NF115"):
        node.backward(harness.affine(1, (1, 3, 1), (1,)))
    with harness.refused("NF114"):
        node.forward({1: Affine.of(1.0, 1.0, rank=1)})


@pytest.mark.parametrize(
    "norm",
    ["InstanceNormalization (x, g, b)", "GroupNormalization <num_groups = 2, stash_type = 11> (x, g, b)"],
)
def test_fold_an_affine_behind_a_norm(harness, norm):
    text = f"""g (double[N, 4, H, W] x) => (double[N, 4, H, W] y) {{
        a = {norm}
        c = Mul (a, s)
        y = Add (c, t)
    }}"""
    outcome = harness.fold(text, harness.weights(1, g=(4,), b=(4,), s=(4, 1, 1), t=(4, 1, 1)), opset=21)
    assert outcome.affines == []


def test_fold_a_shift_in_front_of_instance_norm(harness):
    text = """g (double[N, 4, H, W] x) => (double[N, 4, H, W] y) {
        a = Sigmoid (x)
        c = Add (a, t)
        y = InstanceNormalization (c, g, b)
    }"""
    outcome = harness.fold(text, harness.weights(1, g=(4,), b=(4,), t=(4, 1, 1)))
    assert outcome.operators == ["Sigmoid", "InstanceNormalization"]
