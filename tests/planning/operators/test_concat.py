"""Concat."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

BN = "BatchNormalization"


def concat(harness: Any, sizes: list[int], axis: int = 1, *, batch: Any = "N") -> Any:
    operands = ", ".join(f"double[{batch}, {size}, 4] x{i}" for i, size in enumerate(sizes))
    names = ", ".join(f"x{i}" for i in range(len(sizes)))
    return harness.one(
        f"g ({operands}) => (double[{batch}, {sum(sizes)}, 4] y) {{ y = Concat <axis = {axis}> ({names}) }}"
    )


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    axis=st.sampled_from([1, -2]),
    axes=st.sets(st.integers(1, 2)),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_parts_both_ways(
    harness: Any, sizes: list[int], axis: int, axes: set[int], seed: int, data: st.DataObject
) -> None:
    node = concat(harness, sizes, axis)
    node.backward(harness.affine(seed, (2, sum(sizes), 4), tuple(axes)))
    bringing = data.draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1))
    node.forward({i: harness.affine(seed + i, (2, sizes[i], 4), tuple(axes)) for i in bringing})


def test_axes_off_the_parts_need_no_sizes(harness: Any) -> None:
    node = harness.one(
        "g (double[N, A, 4] a, double[N, B, 4] b) => (double[N, C, 4] y) { y = Concat <axis = 1> (a, b) }"
    )
    affine = harness.affine(0, (2, 1, 4), (2,))
    assert node.backward(affine).affines[1].same_as(affine)
    assert node.forward({0: affine, 1: affine}).affines[0].same_as(affine)
    with harness.refused("NF112"):
        node.forward({0: affine})


def test_one_unknown_size_follows_from_the_others(harness: Any) -> None:
    text = "g (double[N, A] a, double[N, 2] b) => (double[N, 5] y) { y = Concat <axis = 1> (a, b) }"
    node = harness.one(text)
    fed = {"a": np.ones((2, 3)), "b": np.ones((2, 2))}
    node.backward(harness.affine(0, (2, 5), (1,)), fed)
    node.forward({1: harness.affine(0, (2, 2), (1,))}, fed)


def test_two_unknown_sizes_are_refused(harness: Any) -> None:
    text = "g (double[N, A] a, double[N, B] b) => (double[N, 5] y) { y = Concat <axis = 1> (a, b) }"
    with harness.refused("NF112"):
        harness.one(text).backward(harness.affine(0, (2, 5), (1,)))


def test_one_value_in_two_slots_brings_its_affine_twice(harness: Any) -> None:
    text = f"""g (double[N, 3, 4] x) => (double[N, 2, 4] y) {{
        n = {BN} (x, scale, bias, mean, var) c = Concat <axis = 1> (n, n) y = Conv (c, w) }}"""
    harness.fold(text, {**harness.weights(0, w=(2, 6, 1)), **harness.batchnorm(1, 3)}).gone()


def test_one_value_in_two_slots_is_not_asked_for_two_affines(harness: Any) -> None:
    text = f"""g (double[N, 3, 4] x) => (double[N, 4, 4] y) {{
        v = Conv (x, w) c = Concat <axis = 1> (v, v) y = {BN} (c, scale, bias, mean, var) }}"""
    harness.fold(text, {**harness.weights(0, w=(2, 3, 1)), **harness.batchnorm(1, 4)}).kept("NF119")


def test_decoder_concat_takes_its_batchnorm_into_every_producer(harness: Any) -> None:
    text = f"""g (double[N, 3, 4, 4] x, double[N, 2, 8, 8] skip) => (double[N, 7, 8, 8] y) {{
        up = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (x, v)
        side = Conv (skip, w, b)
        c = Concat <axis = 1> (up, side)
        n = {BN} (c, scale, bias, mean, var)
        y = Relu (n) }}"""
    constants = {**harness.weights(0, v=(3, 4, 2, 2), w=(3, 2, 1, 1), b=(3,)), **harness.batchnorm(1, 7)}
    outcome = harness.fold(text, constants)
    outcome.gone()
    assert outcome.operators == ["ConvTranspose", "Conv", "Concat", "Relu"]


def test_constant_part_is_transformed(harness: Any) -> None:
    """A class token in front of the patches changes as their weights do."""
    text = """g (double[2, 6, 4] x) => (double[2, 7, 5] y) {
        p = MatMul (x, w) c = Concat <axis = 1> (token, p) m = Mul (c, s) y = Relu (m) }"""
    constants = harness.weights(0, w=(4, 5), token=(2, 1, 5), s=(5,))
    harness.fold(text, constants).gone()


def test_dense_block_takes_the_batchnorm_of_one_part_forward(harness: Any) -> None:
    text = f"""g (double[N, 2, 4] x, double[N, 3, 4] z) => (double[N, 6, 4] y) {{
        n = {BN} (z, scale, bias, mean, var) c = Concat <axis = 1> (x, n) y = Conv (c, w) }}"""
    harness.fold(text, {**harness.weights(0, w=(6, 5, 1)), **harness.batchnorm(1, 3)}).gone()


def test_a_producer_that_cannot_take_its_part_bars_the_others(harness: Any) -> None:
    text = f"""g (double[N, 3, 4] x, double[N, 2, 4] z) => (double[N, 6, 4] y) {{
        a = Conv (x, w) c = Concat <axis = 1> (a, z) y = {BN} (c, scale, bias, mean, var) }}"""
    outcome = harness.fold(text, {**harness.weights(0, w=(4, 3, 1)), **harness.batchnorm(1, 6)})
    assert len(outcome.affines) == 1
