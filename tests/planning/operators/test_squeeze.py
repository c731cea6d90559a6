"""Squeeze and Unsqueeze."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def insertions(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Dimensions with 1s among them, and the places of the 1s, some counted from the end."""
    ones = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    dims = [1 if one else axis + 2 for axis, one in enumerate(ones)]
    places = [axis for axis, one in enumerate(ones) if one]
    return dims, draw(st.permutations([p - len(dims) if draw(st.booleans()) else p for p in places]))


@settings(max_examples=30, deadline=None)
@given(case=insertions(), old=st.booleans(), seed=st.integers(0, 1 << 16))
def test_axes_of_size_one_come_and_go(
    harness: Any, case: tuple[list[int], list[int]], old: bool, seed: int
) -> None:
    long, axes = case
    short = [dim for dim in long if dim != 1]
    texts = {
        "Squeeze": f"g (double{long} x) => (double{short} y)",
        "Unsqueeze": f"g (double{short} x) => (double{long} y)",
    }
    for op, signature in texts.items():
        like = harness.model(
            f"{signature} {{ y = {op} (x, axes) }}", {"axes": np.array(axes, dtype=np.int64)}
        )
        if old and axes:
            node = harness.one(f"{signature} {{ y = {op} <axes = {axes}> (x) }}", opset=11, like=like)
        else:
            node = harness.one(
                f"{signature} {{ y = {op} (x, axes) }}", {"axes": np.array(axes, dtype=np.int64)}
            )
        before, after = (long, short) if op == "Squeeze" else (short, long)
        node.forward(harness.affine(seed, tuple(before), tuple(range(len(before)))))
        node.backward(harness.affine(seed, tuple(after), tuple(range(len(after)))))


def test_squeeze_without_axes_takes_every_one(harness: Any) -> None:
    node = harness.one("g (double[1, 3, 1, 4] x) => (double[3, 4] y) { y = Squeeze (x) }")
    node.forward(harness.affine(0, (1, 3, 1, 4), (1, 3)))
    node.backward(harness.affine(0, (3, 4), (0, 1)))


def test_squeeze_without_axes_of_an_unknown_size_is_refused(harness: Any) -> None:
    node = harness.one("g (double[N, 3, 1] x) => (double[N, 3] y) { y = Squeeze (x) }")
    with harness.refused("NF112"):
        node.backward(harness.affine(0, (2, 3), (1,)))


@pytest.mark.parametrize("op", ["Squeeze", "Unsqueeze"])
def test_axes_computed_at_run_time_are_refused(harness: Any, op: str) -> None:
    node = harness.one(f"g (double[1, 3] x, int64[1] axes) => (double[] y) {{ y = {op} (x, axes) }}")
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (1, 3), (1,)))


def test_squeezing_an_axis_that_is_not_one_is_refused(harness: Any) -> None:
    node = harness.one(
        "g (double[N, K] x) => (double[N] y) { y = Squeeze (x, axes) }", {"axes": np.array([1])}
    )
    with harness.refused("NF113"):
        node.forward(harness.affine(0, (2, 3), (1,)))


def test_batchnorm1d_over_an_added_axis(harness: Any) -> None:
    text = """g (double[N, 4] x) => (double[N, 5] y) {
        z = Gemm (x, w) u = Unsqueeze (z, last) n = BatchNormalization (u, scale, bias, mean, var)
        y = Squeeze (n, last) }"""
    constants = {**harness.weights(0, w=(4, 5)), **harness.batchnorm(1, 5), "last": np.array([-1])}
    harness.fold(text, constants).gone()
