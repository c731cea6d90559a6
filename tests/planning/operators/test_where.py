"""Where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

_TWO = (
    "g (bool[N, 3, 4] c, double[N, 3, 4] a, double[N, 3, 4] b) => (double[N, 3, 4] y) { y = Where (c, a, b) }"
)
_ONE = "g (bool[N, 3, 4] c, double[N, 3, 4] a) => (double[N, 3, 4] y) { y = Where (c, %s) }"


@settings(max_examples=20, deadline=None)
@given(axes=st.sets(st.integers(1, 2)).map(tuple), seed=st.integers(0, 99), forward=st.booleans())
def test_both_branches(harness, axes, seed, forward):
    node, affine = harness.one(_TWO), harness.affine(seed, (1, 3, 4), axes)
    if forward:
        node.forward({1: affine, 2: affine})
    else:
        node.backward(affine)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1)])
@pytest.mark.parametrize("branches", ["a, k", "k, a"])
def test_a_constant_branch_follows(harness, shape, branches):
    node = harness.one(_ONE % branches, harness.weights(1, k=shape))
    affine = harness.affine(2, (1, 3, 4), (1,))
    node.backward(affine)
    node.forward({1 + branches.split(", ").index("a"): affine})


def test_forward_only_one_branch(harness):
    with harness.refused("NF114"):
        harness.one(_TWO).forward({1: Affine.of(2.0, rank=3)})


def test_forward_different_affines(harness):
    with harness.refused("NF114"):
        harness.one(_TWO).forward({1: Affine.of(2.0, rank=3), 2: Affine.of(3.0, rank=3)})


def test_forward_a_zero_scale_at_a_constant_branch(harness):
    node = harness.one(_ONE % "a, k", {"k": np.array(1.0)})
    with harness.refused("NF127"):
        node.forward({1: Affine.of(0.0, 1.0, rank=3)})


def test_a_broadcast_branch(harness):
    node = harness.one(
        "g (bool[N, 3] c, double[N, 1] a, double[N, 3] b) => (double[N, 3] y) { y = Where (c, a, b) }"
    )
    with harness.refused("NF113"):
        node.backward(harness.affine(1, (1, 3), (1,)))


def test_fold_behind_a_mask(harness):
    text = """g (bool[N, 1, H, W] c, double[N, 3, H, W] x) => (double[N, 4, H, W] y) {
        a = Conv (x, w)
        b = Where (c, a, zero)
        y = BatchNormalization (b, scale, bias, mean, var)
    }"""
    constants = {**harness.weights(1, w=(4, 3, 1, 1)), **harness.batchnorm(2, 4), "zero": np.array(0.0)}
    harness.fold(text, constants).gone()
