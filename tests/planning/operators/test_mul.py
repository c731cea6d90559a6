"""Mul and Div of computed operands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

_PAIR = "g (double[N, 3, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) { y = %s (a, b) }"


@settings(max_examples=20, deadline=None)
@given(op=st.sampled_from(["Mul", "Div"]), axes=st.sets(st.integers(1, 2)), seed=st.integers(0, 9))
def test_backward_one_operand_takes_the_scale(harness, op, axes, seed):
    crossing = harness.one(_PAIR % op).backward(harness.affine(seed, (1, 3, 4), tuple(axes), shift=False))
    assert len(crossing.affines) <= 1


@settings(max_examples=20, deadline=None)
@given(
    op=st.sampled_from(["Mul", "Div"]), slots=st.sets(st.integers(0, 1), min_size=1), seed=st.integers(0, 9)
)
def test_forward_scales_multiply_or_divide(harness, op, slots, seed):
    given_ = {slot: harness.affine(seed + slot, (1, 3, 4), (slot + 1,), shift=False) for slot in slots}
    harness.one(_PAIR % op).forward(given_)


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_shift_crosses_neither_way(harness, op):
    node, affine = harness.one(_PAIR % op), harness.affine(1, (1, 3, 4), (1,), scale=False)
    with harness.refused("NF114"):
        node.backward(affine)
    with harness.refused("NF114"):
        node.forward(affine)


def test_a_gate_leaves_the_scale_to_the_operand_of_full_size(harness):
    node = harness.one("g (double[N, 1, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) { y = Mul (a, b) }")
    assert list(node.backward(harness.affine(1, (1, 3, 1), (1,), shift=False)).affines) == [1]


def test_the_divisor_takes_the_reciprocal(harness):
    node = harness.one("g (double[N, 1] a, double[N, 3] b) => (double[N, 3] y) { y = Div (a, b) }")
    affine = harness.affine(1, (1, 3), (1,), shift=False)
    np.testing.assert_allclose(node.backward(affine).affines[1].scale, 1 / affine.scale)


def test_the_divisor_does_not_take_a_zero_scale(harness):
    node = harness.one("g (double[N, 1] a, double[N, 3] b) => (double[N, 3] y) { y = Div (a, b) }")
    zero = Affine.on_axis(np.array([1.0, 0.0, 2.0]), 0.0, axis=1, rank=2)
    with harness.refused("NF127"):
        node.backward(zero)
    with harness.refused("NF127"):
        node.forward({1: zero})


def test_no_operand_of_full_size(harness):
    node = harness.one("g (double[N, 3, 1] a, double[N, 1, 4] b) => (double[N, 3, 4] y) { y = Mul (a, b) }")
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3, 4), (1, 2), shift=False))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_square_takes_the_root_twice(harness, sign):
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = Conv (x, w)
        b = Mul (a, a)
        y = Mul (b, s)
    }"""
    scale = np.array([0.5, 2.0, 3.0, sign]).reshape(4, 1, 1)
    outcome = harness.fold(text, {**harness.weights(1, w=(4, 3, 1, 1)), "s": scale})
    if sign > 0:
        outcome.gone()
    else:
        outcome.kept("NF117")


def test_forward_a_square_squares_the_scale(harness):
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = Mul (x, s)
        b = Mul (a, a)
        y = Conv (b, w)
    }"""
    scale = np.array([0.5, -2.0, 3.0]).reshape(3, 1, 1)
    harness.fold(text, {**harness.weights(1, w=(4, 3, 1, 1)), "s": scale}).gone()


def test_squeeze_and_excite(harness):
    text = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = Conv (x, w)
        p = GlobalAveragePool (a)
        f = Conv (p, v)
        q = Sigmoid (f)
        b = Mul (q, a)
        y = Mul (b, s)
    }"""
    weights = harness.weights(1, w=(4, 3, 1, 1), v=(4, 4, 1, 1), s=(4, 1, 1))
    outcome = harness.fold(text, weights)
    assert (
        outcome.sites[0].action == "kept"
    )  # the convolution is also read by the pool, and Sigmoid is in the way
