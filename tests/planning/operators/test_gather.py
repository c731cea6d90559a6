"""Gather."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BN = "BatchNormalization"


def gather(
    harness: Any, dims: tuple[Any, ...], axis: int, indices: np.ndarray
) -> tuple[Any, tuple[int, ...]]:
    place = axis + len(dims) if axis < 0 else axis
    after = (*dims[:place], *indices.shape, *dims[place + 1 :])
    before_text, after_text = (", ".join(str(d) for d in shape) for shape in (dims, after))
    text = f"g (double[{before_text}] x) => (double[{after_text}] y) {{ y = Gather <axis = {axis}> (x, i) }}"
    return harness.one(text, {"i": indices}), tuple(2 if d == "N" else d for d in after)


@settings(max_examples=40, deadline=None)
@given(
    axis=st.integers(-2, 2),
    shape=st.sampled_from([(), (1,), (3,), (2, 2)]),
    batch=st.sampled_from([2, "N"]),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_constant_indices_both_ways(
    harness: Any, axis: int, shape: tuple[int, ...], batch: Any, seed: int, data: st.DataObject
) -> None:
    """Forward always; backward with indices that read every element at most once."""
    axis = 1 if axis in (0, -3) and batch == "N" else axis
    dims = (batch, 5, 4)
    size = int((2, 5, 4)[axis])
    count = int(np.prod(shape, dtype=int))
    rng = np.random.default_rng(seed)
    repeats = rng.integers(-size, size, shape)
    node, _ = gather(harness, dims, axis, repeats)
    fixed = {0} if batch == "N" else set()
    node.forward(harness.affine(seed, (2, 5, 4), tuple(data.draw(st.sets(st.integers(0, 2))) - fixed)))
    if count <= size:
        once = rng.permutation(size)[:count].reshape(shape) - size * rng.integers(0, 2)
        node, after = gather(harness, dims, axis, once)
        drawn = data.draw(st.sets(st.integers(0, len(after) - 1)))
        node.backward(harness.affine(seed, after, tuple(drawn - fixed)))


def test_places_that_read_one_element_must_ask_the_same(harness: Any) -> None:
    node, after = gather(harness, ("N", 3), 1, np.array([0, 2, -1]))
    scattered = node.forward(harness.affine(0, (2, 3), (1,))).affines[0]
    node.backward(scattered)
    with harness.refused("NF119"):
        node.backward(harness.affine(1, after, (1,)))


def test_elements_that_are_not_read_are_left_alone(harness: Any) -> None:
    node, after = gather(harness, ("N", 4), 1, np.array([3, 1]))
    asked = node.backward(harness.affine(0, after, (1,))).affines[0]
    assert (asked.scale[0, [0, 2]] == 1.0).all()
    assert (asked.shift[0, [0, 2]] == 0.0).all()


def test_unknown_size_of_the_gather_axis_is_refused_backward(harness: Any) -> None:
    node = harness.one(
        "g (double[N, C] x) => (double[N, 2] y) { y = Gather <axis = 1> (x, i) }", {"i": np.array([0, 1])}
    )
    with harness.refused("NF112"):
        node.backward(harness.affine(0, (2, 2), (1,)))


def test_indices_computed_at_run_time_leave_the_other_axes(harness: Any) -> None:
    node = harness.one("g (double[5, 4] x, int64[N, L] i) => (double[N, L, 4] y) { y = Gather (x, i) }")
    indices = {"i": np.array([[0, 4, -1], [2, 2, 2]])}
    node.backward(harness.affine(0, (2, 3, 4), (2,)), indices)
    node.forward(harness.affine(0, (5, 4), (1,)), indices)
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (5, 4), (0,)))


@pytest.mark.parametrize("following", ["", "z = Relu (n)"])
def test_embedding_table_absorbs_the_affine_behind_it(harness: Any, following: str) -> None:
    result = "z" if following else "n"
    text = f"""g (int64[N, L] i) => (double[N, L, 4] {result}) {{
        e = Gather (table, i) m = Mul (e, s) n = Add (m, t) {following} }}"""
    constants = harness.weights(0, table=(6, 4), s=(4,), t=(4,))
    harness.fold(text, constants, inputs={"i": np.array([[0, 5], [-1, 2]])}).gone()


def test_class_token_is_taken_before_the_head(harness: Any) -> None:
    text = f"""g (double[N, 6, 4] x) => (double[N, 3] y) {{
        r = Relu (x) c = Gather <axis = 1> (r, zero)
        n = {BN} (c, scale, bias, mean, var) y = Gemm (n, w) }}"""
    constants = {**harness.weights(0, w=(4, 3)), **harness.batchnorm(1, 4), "zero": np.array(0)}
    harness.fold(text, constants).gone()
