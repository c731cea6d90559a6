"""Expand and Tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BN = "BatchNormalization"


def one(harness: Any, op: str, before: Any, after: Any, constant: list[int]) -> Any:
    def shown(dims: Any) -> str:
        return ", ".join(str(d) for d in dims)

    text = f"g (double[{shown(before)}] x) => (double[{shown(after)}] y) {{ y = {op} (x, how) }}"
    return harness.one(text, {"how": np.array(constant, dtype=np.int64)})


@settings(max_examples=30, deadline=None)
@given(
    dims=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    grown=st.lists(st.booleans(), min_size=3, max_size=3),
    new=st.integers(0, 2),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_expand_both_ways(
    harness: Any, dims: list[int], grown: list[bool], new: int, seed: int, data: st.DataObject
) -> None:
    after = [2] * new + [4 if dim == 1 and grow else dim for dim, grow in zip(dims, grown, strict=False)]
    node = one(harness, "Expand", dims, after, after)
    axes = data.draw(st.sets(st.integers(0, len(dims) - 1)))
    affine = harness.affine(seed, tuple(dims), tuple(axes))
    brought = node.forward(affine).affines[0]
    assert node.backward(brought).affines[0].same_as(affine)


def test_expand_refuses_copies_that_ask_for_different_affines(harness: Any) -> None:
    node = one(harness, "Expand", ["N", 1, 4], ["N", 3, 4], [1, 3, 1])
    node.backward(harness.affine(0, (2, 3, 4), (2,)))
    with harness.refused("NF119"):
        node.backward(harness.affine(0, (2, 3, 4), (1,)))


def test_expand_refuses_what_varies_on_a_new_axis(harness: Any) -> None:
    node = one(harness, "Expand", [4], [3, 4], [3, 4])
    with harness.refused("NF119"):
        node.backward(harness.affine(0, (3, 4), (0,)))


def test_expand_refuses_an_axis_that_may_be_one(harness: Any) -> None:
    node = one(harness, "Expand", ["N", "C", 4], ["N", 3, 4], [1, 3, 1])
    with harness.refused("NF112"):
        node.backward(harness.affine(0, (2, 3, 4), (1,)))


def test_expand_to_a_shape_of_unknown_length_is_refused(harness: Any) -> None:
    node = harness.one("g (double[2, 3] x, int64[K] shape) => (double[] y) { y = Expand (x, shape) }")
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 3), (1,)))


@settings(max_examples=30, deadline=None)
@given(
    dims=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    repeats=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    symbolic=st.booleans(),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_tile_both_ways(
    harness: Any, dims: list[int], repeats: list[int], symbolic: bool, seed: int, data: st.DataObject
) -> None:
    repeats = repeats[: len(dims)]
    after: list[Any] = [dim * count for dim, count in zip(dims, repeats, strict=True)]
    before: list[Any] = list(dims)
    axes = data.draw(st.sets(st.integers(0, len(dims) - 1)))
    if symbolic and 0 not in axes:
        before[0], after[0] = "N", "M"
    node = one(harness, "Tile", before, after, repeats)
    affine = harness.affine(seed, tuple(dims), tuple(axes))
    brought = node.forward(affine).affines[0]
    assert node.backward(brought).affines[0].same_as(affine)


def test_tile_refuses_copies_that_ask_for_different_affines(harness: Any) -> None:
    node = one(harness, "Tile", [2, 3], [2, 6], [1, 2])
    with harness.refused("NF119"):
        node.backward(harness.affine(0, (2, 6), (1,)))


def test_tile_by_an_unknown_count_is_refused(harness: Any) -> None:
    node = harness.one("g (double[2, C] x, int64[2] how) => (double[2, 6] y) { y = Tile (x, how) }")
    with harness.refused("NF112"):
        node.backward(harness.affine(0, (2, 6), (1,)))
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 3), (1,)))


def test_tile_counts_follow_from_sizes(harness: Any) -> None:
    """The counts are the caller's, but 6 channels behind and 3 in front are two copies."""
    node = harness.one("g (double[2, 3] x, int64[2] how) => (double[K, 6] y) { y = Tile (x, how) }")
    wanted = one(harness, "Tile", [2, 3], [2, 6], [1, 2]).forward(harness.affine(0, (2, 3), (1,))).affines[0]
    node.backward(wanted, {"how": np.array([1, 2])})


def test_tile_of_opset_1_names_an_axis(harness: Any) -> None:
    like = harness.model(
        "g (double[2, 3] x) => (double[2, 6] y) { y = Tile (x, how) }", {"how": np.array([1, 2])}
    )
    text = "g (double[2, 3] x) => (double[2, 6] y) { y = Tile (x, tiles, axis) }"
    node = harness.one(text, {"tiles": np.array(2.0), "axis": np.array(1.0)}, opset=5, like=like)
    affine = harness.affine(0, (2, 3), (0, 1))
    assert node.backward(node.forward(affine).affines[0]).affines[0].same_as(affine)


@pytest.mark.parametrize("spread", ["e = Expand (c, to)", "e = Tile (c, times)"])
def test_image_pooling_spread_over_the_image_takes_its_batchnorm(harness: Any, spread: str) -> None:
    text = f"""g (double[N, 4, 5, 6] x) => (double[N, 3, 5, 6] y) {{
        p = GlobalAveragePool (x) c = Conv (p, w) {spread} y = {BN} (e, scale, bias, mean, var) }}"""
    constants = {**harness.weights(0, w=(3, 4, 1, 1)), **harness.batchnorm(1, 3)}
    constants |= {"to": np.array([1, 3, 5, 6]), "times": np.array([1, 1, 5, 6])}
    harness.fold(text, constants).gone()
