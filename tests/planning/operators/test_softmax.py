"""Softmax and LogSoftmax."""

from __future__ import annotations

import pytest

from normfold.affine import Affine
from normfold.planning.operators import TABLE

_OPS = pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])


@_OPS
def test_a_shift_that_is_uniform_along_the_axis_is_dead(harness, op):
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {op} <axis = 1> (x) }}")
    assert not node.forward(harness.affine(1, (1, 3, 4), (2,), scale=False)).affines


@_OPS
def test_a_shift_that_varies_along_the_axis(harness, op):
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {op} <axis = 1> (x) }}")
    with harness.refused("NF114"):
        node.forward(harness.affine(1, (1, 3, 4), (1,), scale=False))


@_OPS
def test_a_scale(harness, op):
    node = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {op} (x) }}")
    with harness.refused("NF114"):
        node.forward(Affine.of(2.0, rank=3))
    with harness.refused("NF114"):
        node.backward(Affine.of(2.0, rank=3))


@_OPS
def test_before_opset_13_all_axes_from_the_first_on_are_normalised(harness, op):
    view = harness.one(f"g (double[N, 3, 4] x) => (double[N, 3, 4] y) {{ y = {op} (x) }}", opset=12).view
    for axis in (1, 2):
        with harness.refused("NF114"):
            TABLE[op].forward(view, {0: harness.affine(1, (1, 3, 4), (axis,), scale=False)})
    assert not TABLE[op].forward(view, {0: harness.affine(1, (2, 3, 4), (0,), scale=False)}).affines


def test_fold_a_shift_in_front_of_softmax(harness):
    text = """g (double[N, 3, 4] x) => (double[N, 3, 4] y) {
        a = Sigmoid (x)
        b = Add (a, t)
        y = Softmax <axis = 1> (b)
    }"""
    outcome = harness.fold(text, harness.weights(1, t=(4,)))
    assert outcome.operators == ["Sigmoid", "Softmax"]
