"""Transpose."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=30, deadline=None)
@given(
    permutation=st.integers(1, 5).flatmap(lambda rank: st.permutations(range(rank))),
    given_=st.booleans(),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_every_permutation_both_ways(
    harness: Any, permutation: list[int], given_: bool, seed: int, data: st.DataObject
) -> None:
    rank = len(permutation)
    if not given_:
        permutation = list(reversed(range(rank)))
    before = [axis + 2 for axis in range(rank)]
    after = [before[axis] for axis in permutation]
    attribute = f"<perm = {permutation}>" if given_ else ""
    node = harness.one(f"g (double{before} x) => (double{after} y) {{ y = Transpose {attribute} (x) }}")
    axes = tuple(data.draw(st.sets(st.integers(0, rank - 1))))
    node.backward(harness.affine(seed, tuple(after), axes))
    node.forward(harness.affine(seed, tuple(before), axes))


def test_scale_behind_a_transpose_lands_on_the_axis_it_came_from(harness: Any) -> None:
    """Sizes coincide, axes do not: the last axis behind the Transpose is its channels or its rows."""
    constants = {**harness.weights(0, w=(4, 4, 1, 1), s=(4,))}
    text = """g (double[N, 4, 4, 4] x) => (double[N, 4, 4, 4] y) {
        c = Conv (x, w) t = Transpose <perm = [0, 2, 3, 1]> (c) y = Mul (t, s) }"""
    harness.fold(text, constants).gone()
    text = text.replace("[0, 2, 3, 1]", "[0, 1, 3, 2]")
    assert harness.fold(text, constants).affines == ["Mul"]
