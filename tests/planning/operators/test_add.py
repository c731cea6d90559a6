"""Add, Sub and Sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.planning.operators import TABLE

_CONVS = {"w": (4, 3, 1, 1), "v": (4, 3, 1, 1)}
_TWO_CONVS = """g (double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
    a = Conv (x, w)
    b = Conv (x, v)
    c = %s
    y = BatchNormalization (c, scale, bias, mean, var)
}"""


@settings(max_examples=30, deadline=None)
@given(
    op=st.sampled_from(["Add (a, b)", "Sub (a, b)", "Sum (a, b, a2)"]),
    axes=st.sets(st.integers(0, 2)),
    seed=st.integers(0, 9),
)
def test_backward_every_operand_takes_the_scale_and_one_the_shift(harness, op, axes, seed):
    node = harness.one(
        f"g (double[2, 3, 4] a, double[2, 3, 4] b, double[2, 3, 4] a2) => (double[2, 3, 4] y) {{ y = {op} }}"
    )
    affine = harness.affine(seed, (2, 3, 4), tuple(axes))
    crossing = node.backward(affine)
    assert sum(a.has_shift for a in crossing.affines.values()) == 1
    assert all((a.scale == affine.scale).all() for a in crossing.affines.values())


@settings(max_examples=20, deadline=None)
@given(op=st.sampled_from(["Add", "Sub"]), axes=st.sets(st.integers(0, 2)), seed=st.integers(0, 9))
def test_forward_equal_scales_cross_and_shifts_sum(harness, op, axes, seed):
    node = harness.one(
        f"g (double[N, 3, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) {{ y = {op} (a, b) }}"
    )
    axes = tuple(axes - {0})
    first, second = (harness.affine(s, (1, 3, 4), axes) for s in (seed, seed + 1))
    node.forward({0: first, 1: Affine(first.scale, second.shift)})


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("slot", [0, 1])
def test_forward_a_shift_of_one_operand_crosses(harness, op, slot):
    node = harness.one(
        f"g (double[N, 3, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) {{ y = {op} (a, b) }}"
    )
    node.forward({slot: harness.affine(1, (1, 3, 4), (1, 2), scale=False)})


def test_forward_a_scale_of_one_operand_does_not_cross(harness):
    node = harness.one("g (double[N, 3] a, double[N, 3] b) => (double[N, 3] y) { y = Add (a, b) }")
    with harness.refused("NF114"):
        node.forward(harness.affine(1, (1, 3), (1,)))


def test_forward_different_scales_do_not_cross(harness):
    node = harness.one("g (double[N, 3] a, double[N, 3] b) => (double[N, 3] y) { y = Add (a, b) }")
    with harness.refused("NF114"):
        node.forward({0: harness.affine(1, (1, 3), (1,)), 1: harness.affine(2, (1, 3), (1,))})


def test_forward_a_constant_among_the_operands_is_divided_by_the_scale(harness):
    node = harness.one(
        "g (double[N, 3] a, double[N, 3] b) => (double[N, 3] y) { y = Sum (a, c, b) }", {"c": np.array(2.0)}
    )
    affine = harness.affine(1, (1, 3), (1,))
    crossing = node.forward({0: affine, 2: affine.only_scale()})
    np.testing.assert_allclose(crossing.constants[1].compute(), 2.0 / affine.scale[0])


def test_forward_a_constant_cannot_be_divided_by_a_zero_scale(harness):
    node = harness.one("g (double[N, 3] a) => (double[N, 3] y) { y = Sum (a, c, c) }", {"c": np.array(2.0)})
    with harness.refused("NF127"):
        node.forward(Affine.on_axis(np.array([1.0, 0.0, 2.0]), 0.0, axis=1, rank=2))


def test_broadcast_operands_by_trailing_axes(harness):
    node = harness.one("g (double[3, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) { y = Add (a, b) }")
    node.backward(harness.affine(1, (1, 3, 4), (1, 2)))
    node.forward({0: harness.affine(2, (3, 4), (0,), scale=False)})


def test_a_broadcast_operand_cannot_take_a_scale_that_varies_there(harness):
    node = harness.one("g (double[N, 3, 4] a, double[N, 1, 4] b) => (double[N, 3, 4] y) { y = Add (a, b) }")
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3, 1), (1,), shift=False))


def test_an_operand_of_symbolic_size_may_be_broadcast(harness):
    node = harness.one("g (double[N, 3, 4] a, double[N, C, 4] b) => (double[N, 3, 4] y) { y = Add (a, b) }")
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3, 1), (1,), shift=False))


def test_the_shift_goes_to_the_operand_of_full_size(harness):
    node = harness.one("g (double[N, 1, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) { y = Sub (a, b) }")
    crossing = node.backward(harness.affine(1, (1, 3, 1), (1,), scale=False))
    assert list(crossing.affines) == [1]


def test_no_operand_of_full_size(harness):
    node = harness.one("g (double[N, 3, 1] a, double[N, 1, 4] b) => (double[N, 3, 4] y) { y = Add (a, b) }")
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3, 4), (1, 2), scale=False))


def test_operands_are_aligned_by_the_axis_attribute_before_opset_7(harness):
    """onnx.reference does not know the attribute: by hand."""
    view = harness.one(
        """g (double[2, 3, 4, 5] a, double[3] b) => (double[2, 3, 4, 5] y) {
            y = Add <axis = 1, broadcast = 1> (a, b)
        }""",
        opset=6,
    ).view
    affine = harness.affine(1, (2, 3, 4, 5), (1,), shift=False)
    asked = TABLE["Add"].backward(view, {0: affine}).affines
    assert asked[0].same_as(affine)
    assert asked[1].same_as(Affine.of(affine.scale.reshape(3), rank=1))
    brought = TABLE["Add"].forward(view, {1: Affine.of(1.0, np.arange(3.0), rank=1)}).affines
    np.testing.assert_array_equal(brought[0].shift, np.arange(3.0).reshape(1, 3, 1, 1))
    with harness.refused("NF113"):
        TABLE["Add"].backward(view, {0: harness.affine(1, (2, 3, 4, 5), (3,), shift=False)})


@pytest.mark.parametrize("sum_", ["Add (a, b)", "Sub (a, b)", "Sub (b, a)", "Sum (a, b, a)"])
def test_fold_into_both_convolutions(harness, sum_):
    harness.fold(_TWO_CONVS % sum_, {**harness.weights(1, **_CONVS), **harness.batchnorm(2, 4)}).gone()


def test_one_operand_twice_takes_half_the_shift_each(harness):
    outcome = harness.fold(
        _TWO_CONVS % "Add (a, a)", {**harness.weights(1, **_CONVS), **harness.batchnorm(2, 4)}
    )
    outcome.gone()
    assert outcome.operators == ["Conv", "Conv", "Add"]  # the second one was unused before


def test_a_value_minus_itself_takes_no_shift(harness):
    node = harness.one("g (double[N, 3] a) => (double[N, 3] y) { y = Sub (a, a) }")
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3), (1,), scale=False))


def test_the_shift_goes_where_a_layer_takes_it(harness):
    """The first operand is a graph input's activation, the second a convolution."""
    text = """g (double[N, 3, H, W] x, double[N, 4, H, W] z) => (double[N, 4, H, W] y) {
        a = Sigmoid (z)
        b = Conv (x, w)
        c = Add (a, b)
        y = Add (c, t)
    }"""
    outcome = harness.fold(text, {**harness.weights(1, w=(4, 3, 1, 1), t=(4, 1, 1))})
    outcome.gone()
    assert outcome.operators == ["Sigmoid", "Conv", "Add"]
