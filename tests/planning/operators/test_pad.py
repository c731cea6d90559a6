"""Pad in its modes, as attributes and as inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.planning.operators import TABLE

_WAYS = pytest.mark.parametrize("way", ["backward", "forward"])
_SPACE = np.array([0, 0, 1, 0, 0, 2])  # [N, C, H]: one in front of H, two behind
_CHANNELS = np.array([0, 1, 0, 0, 2, 0])


def _pad(harness, pads, value=None, mode="constant", dims="N, 3, 4", opset=20):
    constants = {"pads": np.asarray(pads)}
    if value is not None:
        constants["v"] = np.array(value)
    call = f'Pad <mode = "{mode}"> (x, pads{", v" if value is not None else ""})'
    return harness.one(
        f"g (double[{dims}] x) => (double[P, Q, R] y) {{ y = {call} }}", constants, opset=opset
    )


@settings(max_examples=30, deadline=None)
@given(
    mode=st.sampled_from(["edge", "reflect", "wrap"]),
    way=st.sampled_from(["backward", "forward"]),
    seed=st.integers(0, 99),
)
def test_padding_that_copies(harness, mode, way, seed):
    getattr(_pad(harness, _SPACE, mode=mode), way)(harness.affine(seed, (1, 3, 1), (1,)))


@_WAYS
@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_padding_that_copies_along_a_varying_axis(harness, mode, way):
    with harness.refused("NF110"):
        getattr(_pad(harness, _CHANNELS, mode=mode), way)(harness.affine(1, (1, 3, 1), (1,)))


@settings(max_examples=20, deadline=None)
@given(
    value=st.sampled_from([None, 0.0, 2.5]),
    way=st.sampled_from(["backward", "forward"]),
    seed=st.integers(0, 99),
)
def test_a_uniform_affine_changes_the_pad_value(harness, value, way, seed):
    affine = harness.affine(seed, (1, 1, 1), ())
    crossing = getattr(_pad(harness, _SPACE, value), way)(affine)
    old = value or 0.0
    new = affine.apply(np.array(old)) if way == "backward" else (old - affine.shift) / affine.scale
    np.testing.assert_allclose(crossing.constants[2].compute(), new.item())


@_WAYS
def test_a_scale_crosses_zero_padding(harness, way):
    crossing = getattr(_pad(harness, _SPACE), way)(harness.affine(1, (1, 3, 1), (1,), shift=False))
    assert not crossing.constants


@_WAYS
def test_a_scale_does_not_cross_other_padding(harness, way):
    with harness.refused("NF116"):
        getattr(_pad(harness, _SPACE, 2.5), way)(harness.affine(1, (1, 3, 1), (1,), shift=False))


@_WAYS
def test_a_shift_that_varies_does_not_cross_padding(harness, way):
    with harness.refused("NF116"):
        getattr(_pad(harness, _SPACE), way)(harness.affine(1, (1, 3, 1), (1,), scale=False))


@_WAYS
def test_scale_and_shift_that_agree_on_the_pad_value(harness, way):
    """All channels map the padding to the same number: backward 2.5 to 1, forward 1 to 2.5."""
    scale = harness.affine(1, (1, 3, 1), (1,)).scale
    affine = Affine(scale, 1.0 - np.array(2.5) * scale)
    exact = np.array_equal(scale * 2.5 + affine.shift, np.ones((1, 3, 1)))
    value = 2.5 if way == "backward" else 1.0
    if not exact:
        affine = Affine.on_axis(
            np.array([2.0, -4.0, 0.5]), 1.0 - 2.5 * np.array([2.0, -4.0, 0.5]), axis=1, rank=3
        )
    crossing = getattr(_pad(harness, _SPACE, value), way)(affine)
    assert crossing.constants[2].compute() == (1.0 if way == "backward" else 2.5)


@settings(max_examples=20, deadline=None)
@given(value=st.sampled_from([0.0, 2.5]), seed=st.integers(0, 99), shift=st.booleans())
def test_forward_padded_channels_get_entries_of_their_own(harness, value, seed, shift):
    affine = harness.affine(seed, (1, 3, 1), (1,), shift=shift)
    crossing = _pad(harness, _CHANNELS, value).forward(affine)
    assert crossing.affines[0].scale.shape == (1, 6, 1)


def test_forward_padded_channels_and_space(harness):
    both = _SPACE + _CHANNELS
    _pad(harness, both).forward(harness.affine(1, (1, 3, 1), (1,), shift=False))
    scale = harness.affine(2, (1, 3, 1), (1,)).scale
    _pad(harness, both).forward(Affine(scale, 2.0 * scale))
    with harness.refused("NF116"):
        _pad(harness, both).forward(harness.affine(1, (1, 3, 1), (1,)))


def test_backward_padded_channels_are_dropped(harness):
    affine = harness.affine(1, (1, 6, 1), (1,))
    shift = affine.shift.copy()
    shift[:, [0, 4, 5]] = 0.75
    crossing = _pad(harness, _CHANNELS).backward(Affine(affine.scale, shift))
    np.testing.assert_array_equal(crossing.affines[0].scale, affine.scale[:, 1:4])
    assert crossing.constants[2].compute() == 0.75
    with harness.refused("NF116"):
        _pad(harness, _CHANNELS).backward(affine)


@_WAYS
def test_a_zero_scale(harness, way):
    zero = Affine.on_axis(np.array([1.0, 0.0, 2.0]), 0.0, axis=1, rank=3)
    getattr(_pad(harness, _SPACE), way)(zero)


def test_forward_a_zero_scale_with_another_shift(harness):
    with harness.refused("NF127"):
        _pad(harness, _SPACE).forward(Affine.of(0.0, 1.0, rank=3))


@_WAYS
def test_padding_with_minus_infinity(harness, way):
    """The comparison of the harness says nothing about infinities: s·(−∞) + t is −∞, so nothing changes."""
    node = _pad(harness, _SPACE, -np.inf)
    affine = harness.affine(1, (1, 3, 1), (1,), positive=True)
    crossing = getattr(TABLE["Pad"], way)(node.view, {0: affine})
    assert crossing.affines[0].same_as(affine)
    assert not crossing.constants
    with harness.refused("NF117"):
        getattr(node, way)(Affine.of(-1.0, rank=3))


@_WAYS
def test_cropping(harness, way):
    """onnx.reference cannot crop: the affine is uniform where elements go, so it stays as it is."""
    affine = harness.affine(1, (1, 3, 1), (1,))
    view = _pad(harness, [0, 0, -1, 0, 0, -1]).view
    assert getattr(TABLE["Pad"], way)(view, {0: affine}).affines[0].same_as(affine)
    with harness.refused("NF114"):
        getattr(_pad(harness, [0, -1, 0, 0, 0, 0]), way)(harness.affine(1, (1, 3, 1), (1,)))


@_WAYS
def test_no_padding_at_all(harness, way):
    getattr(_pad(harness, [0] * 6), way)(harness.affine(1, (1, 3, 4), (1, 2)))


@_WAYS
def test_pads_of_listed_axes(harness, way):
    node = harness.one(
        "g (double[N, 3, 4] x) => (double[P, Q, R] y) { y = Pad (x, pads, , axes) }",
        {"pads": np.array([1, 2]), "axes": np.array([-1])},
    )
    getattr(node, way)(harness.affine(1, (1, 3, 1), (1,), shift=False))
    assert getattr(node, way)(Affine.of(2.0, 1.0, rank=3)).constants


@_WAYS
def test_pads_computed_at_run_time(harness, way):
    node = harness.one("g (double[N, 3, 4] x, int64[6] pads) => (double[P, Q, R] y) { y = Pad (x, pads) }")
    pads = {"pads": _SPACE}
    getattr(node, way)(Affine.of(2.0, 1.0, rank=3), pads)
    with harness.refused("NF114"):
        getattr(node, way)(harness.affine(1, (1, 3, 1), (1,), shift=False), pads)


@_WAYS
def test_a_pad_value_computed_at_run_time(harness, way):
    node = harness.one(
        "g (double[N, 3, 4] x, double v) => (double[P, Q, R] y) { y = Pad (x, pads, v) }", {"pads": _SPACE}
    )
    with harness.refused("NF115"):
        getattr(node, way)(Affine.of(2.0, rank=3))


@_WAYS
def test_attributes_before_opset_11(harness, way):
    call = "Pad <pads = [0, 0, 1, 0, 0, 2], value = 2.5> (x)"
    node = harness.one(f"g (double[N, 3, 4] x) => (double[P, Q, R] y) {{ y = {call} }}", opset=10)
    crossing = getattr(node, way)(Affine.of(2.0, 0.5, rank=3))
    assert crossing.attributes == {"value": 5.5 if way == "backward" else 1.0}
    with harness.refused("NF111"):
        getattr(node, way)(Affine.of(1.0 / 3.0 if way == "backward" else 3.0, rank=3))


def test_fold_past_a_reflection(harness):
    text = """g (double[N, 3, H, W] x) => (double[N, 5, H, W] y) {
        a = BatchNormalization (x, scale, bias, mean, var)
        b = Pad <mode = "reflect"> (a, pads)
        y = Conv (b, w)
    }"""
    harness.fold(
        text,
        {
            **harness.weights(1, w=(5, 3, 3, 3)),
            **harness.batchnorm(2, 3),
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        },
    ).gone()


def test_fold_past_explicit_zeros(harness):
    """A uniform shift makes the padding −t/s; the convolution behind it then takes both."""
    text = """g (double[N, 3, H, W] x) => (double[N, 5, H, W] y) {
        a = Sub (x, mean)
        b = Pad (a, pads)
        y = Conv (b, w)
    }"""
    constants = {
        **harness.weights(1, w=(5, 3, 3, 3)),
        "mean": np.array(0.5),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    harness.fold(text, constants).gone()
