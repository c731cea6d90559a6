"""Reshape and Flatten, asked alone and in models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BN = "BatchNormalization"


def shape_text(dims: tuple[int | str, ...]) -> str:
    return f"double[{', '.join(str(d) for d in dims)}]"


def reshape_text(before: tuple[int | str, ...], after: tuple[int | str, ...]) -> str:
    return f"g ({shape_text(before)} x) => ({shape_text(after)} y) {{ y = Reshape (x, target) }}"


@st.composite
def factorings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two ways to write one number as a product of dimensions."""
    primes = draw(st.lists(st.sampled_from([2, 2, 3, 5]), min_size=1, max_size=5))

    def grouped() -> list[int]:
        dims, rest = [], list(primes)
        while rest:
            count = draw(st.integers(1, len(rest)))
            dims.append(math.prod(rest[:count]))
            rest = rest[count:]
        for _ in range(draw(st.integers(0, 2))):
            dims.insert(draw(st.integers(0, len(dims))), 1)
        return dims

    return grouped(), grouped()


@settings(max_examples=25, deadline=None)
@given(dims=factorings(), seed=st.integers(0, 1 << 16), data=st.data())
def test_static_reshapes_carry_every_affine_both_ways(
    harness: Any, dims: tuple[list[int], list[int]], seed: int, data: st.DataObject
) -> None:
    before, after = (tuple(d) for d in dims)
    node = harness.one(reshape_text(before, after), {"target": np.array(after)})
    axes = tuple(data.draw(st.sets(st.integers(0, len(after) - 1))))
    node.backward(harness.affine(seed, after, axes))
    axes = tuple(data.draw(st.sets(st.integers(0, len(before) - 1))))
    node.forward(harness.affine(seed, before, axes))


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    per_group=st.integers(1, 4),
    split=st.booleans(),
    batch=st.sampled_from([2, "N"]),
    length=st.sampled_from([3, "L"]),
    front=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_channels_split_and_merge_beside_axes_of_any_size(
    harness: Any, groups: int, per_group: int, split: bool, batch: Any, length: Any, front: bool, seed: int
) -> None:
    channels = groups * per_group
    whole = (batch, channels, length) if front else (batch, length, channels)
    parted = (batch, groups, per_group, length) if front else (batch, length, groups, per_group)
    before, after = (whole, parted) if split else (parted, whole)
    parts = [groups, per_group] if split else [channels]
    target = [0, *parts, -1] if front else [0, 0, *parts]
    node = harness.one(reshape_text(before, after), {"target": np.array(target)})
    varied = (1,) if front else (2,)
    both = (1, 2) if front else (2, 3)
    out_axes, in_axes = (both, varied) if split else (varied, both)
    node.backward(harness.affine(seed, _concrete(after), out_axes))
    node.forward(harness.affine(seed, _concrete(before), in_axes))


def _concrete(dims: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 7 for d in dims)


@settings(max_examples=20, deadline=None)
@given(groups=st.integers(1, 4), per_group=st.integers(1, 3), seed=st.integers(0, 1 << 16))
def test_group_axis_before_unknown_sizes_repeats_over_its_channels(
    harness: Any, groups: int, per_group: int, seed: int
) -> None:
    """Reshape[0, G, -1] in front of a group normalisation, with height and width unknown."""
    text = reshape_text(("N", groups * per_group, "H", "W"), ("N", groups, "M"))
    node = harness.one(text, {"target": np.array([0, groups, -1])})
    crossing = node.backward(harness.affine(seed, (2, groups, 9), (1,)))
    if groups > 1:
        assert crossing.affines[0].axes == (1,)
    # What is the same within each group goes forward too.
    node.forward(crossing.affines[0])


def test_an_affine_finer_than_groups_of_unknown_length_does_not_go_forward(harness: Any) -> None:
    node = harness.one(
        reshape_text(("N", 6, "H"), ("N", 3, "M")),
        {"target": np.array([0, 3, -1])},
    )
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 6, 5), (1,)))


def test_axis_merged_behind_unknown_one_is_refused(harness: Any) -> None:
    node = harness.one(reshape_text(("N", 6), ("M",)), {"target": np.array([-1])})
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 6), (1,)))


def test_axis_merged_in_front_of_unknown_one_is_refused(harness: Any) -> None:
    node = harness.one(reshape_text((6, "L"), ("M",)), {"target": np.array([-1])})
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (6, 2), (0,)))


def test_equal_sizes_prove_nothing(harness: Any) -> None:
    """In [N, 64, 64] → [-1, 64] the last axis stays; the 64 channels are swallowed by the batch."""
    node = harness.one(reshape_text(("N", 4, 4), ("M", 4)), {"target": np.array([-1, 4])})
    crossing = node.backward(harness.affine(0, (8, 4), (1,)))
    assert crossing.affines[0].axes == (2,)
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 4, 4), (1,)))


def test_different_names_are_different_sizes(harness: Any) -> None:
    """[A, 4, B] → [B', 4, A'] with A·B equal: nothing says that the 4 is the same axis."""
    text = "g (double[A, 4, B] x, int64[3] target) => (double[C, 4, D] y) { y = Reshape (x, target) }"
    node = harness.one(text)
    with harness.refused("NF112"):
        node.backward(harness.affine(0, (2, 4, 2), (1,)))


def test_unknown_rank_is_refused(harness: Any) -> None:
    node = harness.one("g (double[A, 4] x, int64[K] target) => (double[] y) { y = Reshape (x, target) }")
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 4), (1,)))


def test_allowzero_takes_zero_at_its_word(harness: Any) -> None:
    """With allowzero the target [0, 4] makes an empty tensor instead of copying N."""
    text = "g (double[N, 4] x) => (double[0, 4] y) { y = Reshape <allowzero = 1> (x, target) }"
    node = harness.one(text, {"target": np.array([0, 4])})
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 4), (1,)), {"x": np.zeros((0, 4))})


def test_reshape_attribute_of_opset_1(harness: Any) -> None:
    like = harness.model(reshape_text(("N", 2, 3), ("N", 6)), {"target": np.array([0, -1])})
    text = "g (double[N, 2, 3] x) => (double[N, 6] y) { y = Reshape <shape = [0, -1]> (x) }"
    node = harness.one(text, opset=4, like=like)
    node.backward(harness.affine(0, (2, 6), (1,)))
    node.forward(harness.affine(0, (2, 2, 3), (1, 2)))


@settings(max_examples=20, deadline=None)
@given(
    dims=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    axis=st.integers(-4, 4),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_static_flatten_carries_every_affine_both_ways(
    harness: Any, dims: list[int], axis: int, seed: int, data: st.DataObject
) -> None:
    axis = max(-len(dims), min(axis, len(dims)))
    cut = axis + len(dims) if axis < 0 else axis
    after = (math.prod(dims[:cut]), math.prod(dims[cut:]))
    node = harness.one(
        f"g ({shape_text(tuple(dims))} x) => ({shape_text(after)} y) {{ y = Flatten <axis = {axis}> (x) }}"
    )
    node.forward(harness.affine(seed, tuple(dims), tuple(data.draw(st.sets(st.integers(0, len(dims) - 1))))))
    node.backward(harness.affine(seed, after, tuple(data.draw(st.sets(st.integers(0, 1))))))


def test_flatten_with_unknown_width_refuses_channels(harness: Any) -> None:
    node = harness.one("g (double[N, 3, 2, W] x) => (double[N, K] y) { y = Flatten (x) }")
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 3, 2, 5), (1,)))


TOKENS = {
    "constant": "flat = Reshape (m, to_rows) n = {bn} y = Reshape (n, to_tokens)",
    "computed from the input": """
        d0 = Shape <start = 0, end = 1> (x)
        d1 = Shape <start = 1, end = 2> (x)
        rows = Mul (d0, d1)
        two = Concat <axis = 0> (rows, channels)
        flat = Reshape (m, two)
        n = {bn}
        three = Concat <axis = 0> (d0, d1, channels)
        y = Reshape (n, three)""",
    "gathered one by one": """
        s = Shape (x)
        a = Gather <axis = 0> (s, zero)
        b = Gather <axis = 0> (s, one)
        a1 = Unsqueeze (a, front)
        b1 = Unsqueeze (b, front)
        flat = Reshape (m, to_rows)
        n = {bn}
        three = Concat <axis = 0> (a1, b1, channels)
        y = Reshape (n, three)""",
    "read from the rows' source": """
        flat = Flatten <axis = 2> (m)
        n = {bn}
        s = Shape (x)
        lead = Slice (s, starts, ends)
        three = Concat <axis = 0> (lead, channels)
        y = Reshape (n, three)""",
}

INDICES = {
    "to_rows": np.array([-1, 5]),
    "channels": np.array([5]),
    "zero": np.array(0),
    "one": np.array(1),
    "front": np.array([0]),
    "starts": np.array([0]),
    "ends": np.array([2]),
}


@pytest.mark.parametrize(
    ("spelling", "lead"),
    [
        (spelling, lead)
        for spelling in TOKENS
        for lead in [(2, 3), ("N", 3), ("N", "L")]
        # A constant target can leave one size open, not two.
        if spelling != "constant" or lead != ("N", "L")
    ],
    ids=str,
)
def test_linear_batchnorm_on_tokens_folds(harness: Any, spelling: str, lead: tuple[Any, Any]) -> None:
    """MatMul → Reshape[N·L, C] → BatchNormalization → Reshape[N, L, C]: one bias Add is left."""
    body = TOKENS[spelling].format(bn=f"{BN} (flat, scale, bias, mean, var)")
    to_tokens = np.array([-1 if lead[0] == "N" else lead[0], 3, 5])
    tokens = f"{lead[0]}, {lead[1]}"
    text = f"g (double[{tokens}, 4] x) => (double[{tokens}, 5] y) {{ m = MatMul (x, w) {body} }}"
    outcome = harness.fold(
        text, {**INDICES, "to_tokens": to_tokens, **harness.weights(0, w=(4, 5)), **harness.batchnorm(1, 5)}
    )
    outcome.gone(biases=1)


def test_batchnorm_over_heads_of_equal_size_is_not_folded_into_the_wrong_axis(harness: Any) -> None:
    """MatMul → Transpose → BN, sizes coinciding: channels are the columns; without Transpose, the rows."""
    text = f"""g (double[2, 4, 4] x) => (double[2, 4, 4] y) {{
        m = MatMul (x, w) t = Transpose <perm = [0, 2, 1]> (m) y = {BN} (t, scale, bias, mean, var) }}"""
    harness.fold(text, {**harness.weights(0, w=(4, 4)), **harness.batchnorm(1, 4)}).gone(biases=1)
    text = f"""g (double[2, 4, 4] x) => (double[2, 4, 4] y) {{
        m = MatMul (x, w) y = {BN} (m, scale, bias, mean, var) }}"""
    harness.fold(text, {**harness.weights(0, w=(4, 4)), **harness.batchnorm(1, 4)}).kept("NF105")


def test_batchnorm_behind_a_reshape_that_regroups_equal_sizes(harness: Any) -> None:
    """[N·4, 4] → [N, 4, 4]: rows become channels, and the last axis has the same size by chance."""
    text = f"""g (double[M, 4] x) => (double[N, 4, 4] y) {{
        m = MatMul (x, w) r = Reshape (m, target) y = {BN} (r, scale, bias, mean, var) }}"""
    constants = {**harness.weights(0, w=(4, 4)), **harness.batchnorm(1, 4), "target": np.array([-1, 4, 4])}
    outcome = harness.fold(text, constants, sizes={"M": 8})
    assert [site.action for site in outcome.sites] == ["kept"]


@pytest.mark.parametrize("batch", [2, "N"])
@pytest.mark.parametrize("size", [3, "S"])
def test_channel_shuffle_is_crossed(harness: Any, batch: Any, size: Any) -> None:
    space = f"{size}, {size}"
    text = f"""g (double[{batch}, 4, {space}] x) => (double[{batch}, 6, {space}] y) {{
        c = Conv (x, w)
        s = Shape (x)
        hw = Slice (s, two, four)
        split = Concat <axis = 0> (split_head, hw)
        r = Reshape (c, split)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
        merged = Concat <axis = 0> (merge_head, hw)
        q = Reshape (t, merged)
        y = {BN} (q, scale, bias, mean, var) }}"""
    constants = {
        **harness.weights(0, w=(6, 4, 1, 1)),
        **harness.batchnorm(1, 6),
        "two": np.array([2]),
        "four": np.array([4]),
        "split_head": np.array([0, 2, 3]),
        "merge_head": np.array([0, -1]),
    }
    harness.fold(text, constants).gone()


@pytest.mark.parametrize("batch", [2, "N"])
def test_pixel_shuffle_by_reshapes_is_crossed(harness: Any, batch: Any) -> None:
    text = f"""g (double[{batch}, 3, 4, 5] x) => (double[{batch}, 2, 8, 10] y) {{
        c = Conv (x, w)
        r = Reshape (c, split)
        t = Transpose <perm = [0, 1, 4, 2, 5, 3]> (r)
        p = Reshape (t, merged)
        y = {BN} (p, scale, bias, mean, var) }}"""
    constants = {
        **harness.weights(0, w=(8, 3, 1, 1)),
        **harness.batchnorm(1, 2),
        "split": np.array([-1, 2, 2, 2, 4, 5]),
        "merged": np.array([-1, 2, 8, 10]),
    }
    harness.fold(text, constants).gone()


@pytest.mark.parametrize("batch", [2, "N"])
@pytest.mark.parametrize("flatten", ["Flatten (n)", "Reshape (n, rows)"])
def test_batchnorm_in_front_of_flatten_goes_into_the_gemm(harness: Any, batch: Any, flatten: str) -> None:
    text = f"""g (double[{batch}, 3, 2, 2] x) => (double[{batch}, 4] y) {{
        a = Relu (x) n = {BN} (a, scale, bias, mean, var) f = {flatten} y = Gemm (f, w, b) }}"""
    constants = {
        **harness.weights(0, w=(12, 4), b=(4,)),
        **harness.batchnorm(1, 3),
        "rows": np.array([0, -1]),
    }
    harness.fold(text, constants).gone()


@pytest.mark.parametrize("batch", [2, "N"])
def test_target_computed_from_the_reshaped_value_itself(harness: Any, batch: Any) -> None:
    """Shape reads no element, so it does not bar the way of an affine to the producer."""
    text = f"""g (double[{batch}, 3, 4] x) => (double[M, 5] z) {{
        m = MatMul (x, w)
        s = Shape (m)
        c = Gather <axis = 0> (s, two)
        c1 = Unsqueeze (c, front)
        target = Concat <axis = 0> (rest, c1)
        r = Reshape (m, target)
        n = {BN} (r, scale, bias, mean, var)
        z = Relu (n) }}"""
    constants = {**harness.weights(0, w=(4, 5)), **harness.batchnorm(1, 5)}
    constants |= {"two": np.array(2), "front": np.array([0]), "rest": np.array([-1])}
    harness.fold(text, constants).gone(biases=1)


def test_target_that_the_caller_gives_may_end_in_the_channels(harness: Any) -> None:
    """Whatever the target is, BatchNormalization has 5 channels, and rows of 5 stand in front."""
    text = f"""g (double[N, L, 4] x, int64[2] target) => (double[M, 5] y) {{
        m = MatMul (x, w) r = Reshape (m, target) y = {BN} (r, scale, bias, mean, var) }}"""
    constants = {**harness.weights(0, w=(4, 5)), **harness.batchnorm(1, 5)}
    outcome = harness.fold(text, constants, inputs={"target": np.array([-1, 5])})
    outcome.gone(biases=1)


def test_axes_that_meet_at_the_back_only(harness: Any) -> None:
    """[N, 6, H] becomes [a, b, 6, H] with a and b that are known at run time only."""
    text = """g (double[N, 3, L] x, int64[2] ab) => (double[P, Q, 6, H] y) {
        c = Conv (x, w) s = Shape <start = 2> (c) t = Concat <axis = 0> (ab, six, s)
        r = Reshape (c, t) y = Mul (r, k) }"""
    constants = harness.weights(0, w=(6, 3, 1), k=(6, 1)) | {"six": np.array([6])}
    harness.fold(text, constants, inputs={"ab": np.array([2, 2])}, sizes={"N": 4}).gone()
