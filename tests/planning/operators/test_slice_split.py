"""Slice and Split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

BN = "BatchNormalization"
BOUND = st.one_of(st.integers(-7, 7), st.sampled_from([2**31 - 1, -(2**31)]))
STEP = st.sampled_from([1, 1, 2, -1, -2])


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 6),
    start=BOUND,
    end=BOUND,
    step=STEP,
    negative=st.booleans(),
    dynamic=st.booleans(),
    seed=st.integers(0, 1 << 16),
    axes=st.sets(st.integers(0, 2)),
)
def test_slice_both_ways(
    harness: Any,
    size: int,
    start: int,
    end: int,
    step: int,
    negative: bool,
    dynamic: bool,
    seed: int,
    axes: set[int],
) -> None:
    count = len(range(size)[start:end:step])
    lead: int | str = 2
    if dynamic:
        lead, axes = "N", axes - {0}
    text = f"""g (double[{lead}, {size}, 3] x) => (double[{lead}, {count}, 3] y) {{
        y = Slice (x, start, end, axis, step) }}"""
    constants = {"start": start, "end": end, "axis": -2 if negative else 1, "step": step}
    node = harness.one(text, {name: np.array([value]) for name, value in constants.items()})
    node.forward(harness.affine(seed, (2, size, 3), tuple(axes)))
    if count:
        node.backward(harness.affine(seed, (2, count, 3), tuple(axes)))


def test_slice_on_several_axes_asks_nothing_of_what_is_not_read(harness: Any) -> None:
    text = "g (double[4, 5] x) => (double[2, 3] y) { y = Slice (x, start, end) }"
    node = harness.one(text, {"start": np.array([1, 0]), "end": np.array([3, 3])})
    asked = node.backward(harness.affine(0, (2, 3), (0, 1))).affines[0]
    assert (asked.scale[[0, 3]] == 1.0).all()
    assert (asked.shift[:, 3:] == 0.0).all()


def test_slice_attributes_of_opset_1(harness: Any) -> None:
    like = harness.model(
        "g (double[N, 5] x) => (double[N, 2] y) { y = Slice (x, start, end, axis) }",
        {"start": np.array([-4]), "end": np.array([3]), "axis": np.array([1])},
    )
    text = "g (double[N, 5] x) => (double[N, 2] y) { y = Slice <axes = [1], starts = [-4], ends = [3]> (x) }"
    node = harness.one(text, opset=9, like=like)
    node.forward(harness.affine(0, (2, 5), (1,)))
    node.backward(harness.affine(0, (2, 2), (1,)))


def test_slice_with_bounds_of_the_caller_may_cut_other_axes(harness: Any) -> None:
    text = """g (double[N, 3, 5] x, int64[1] start, int64[1] end) => (double[N, 3, L] y) {
        y = Slice (x, start, end, axis) }"""
    node = harness.one(text, {"axis": np.array([2])})
    bounds = {"start": np.array([1]), "end": np.array([4])}
    node.forward(harness.affine(0, (2, 3, 5), (1,)), bounds)
    node.backward(harness.affine(0, (2, 3, 3), (1,)), bounds)
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 3, 5), (2,)))


def test_slice_along_unknown_axes_is_refused(harness: Any) -> None:
    text = """g (double[4, 5] x, int64[1] axis) => (double[K, M] y) { y = Slice (x, start, end, axis) }"""
    node = harness.one(text, {"start": np.array([0]), "end": np.array([2])})
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (4, 5), (1,)))


def test_slice_of_an_axis_of_unknown_size_is_refused_backward(harness: Any) -> None:
    text = "g (double[N, C] x) => (double[N, 2] y) { y = Slice (x, start, end, axis) }"
    node = harness.one(text, {"start": np.array([0]), "end": np.array([2]), "axis": np.array([1])})
    with harness.refused("NF112"):
        node.backward(harness.affine(0, (2, 2), (1,)))


def test_slice_that_has_not_the_elements_it_should_is_refused(harness: Any) -> None:
    text = "g (double[N, 5] x) => (double[N, K] y) { y = Slice (x, start, end, axis) }"
    node = harness.one(text, {"start": np.array([0]), "end": np.array([2]), "axis": np.array([1])})
    with harness.refused("NF113"):
        node.backward(harness.affine(0, (2, 3), (1,)))


def test_batchnorm_behind_a_crop_of_channels_changes_only_those(harness: Any) -> None:
    text = f"""g (double[N, 3, 4, 4] x) => (double[N, 2, 4, 4] y) {{
        c = Conv (x, w) s = Slice (c, start, end, axis) y = {BN} (s, scale, bias, mean, var) }}"""
    constants = {"start": np.array([1]), "end": np.array([3]), "axis": np.array([1])}
    harness.fold(text, {**constants, **harness.weights(0, w=(5, 3, 1, 1)), **harness.batchnorm(1, 2)}).gone()


SPLITS = {
    "operand": (20, "(x, sizes)", [2, 3, 1]),
    "attribute": (11, "<axis = 1, split = [2, 3, 1]> (x)", [2, 3, 1]),
    "equal": (13, "<axis = 1> (x)", [2, 2, 2]),
    "count": (20, "<axis = -2, num_outputs = 3> (x)", [2, 2, 2]),
    "uneven count": (20, "<axis = 1, num_outputs = 3> (x)", [3, 3, 1]),
}


def split(harness: Any, spelling: str, size: int | str | None = None) -> tuple[Any, list[int]]:
    opset, call, sizes = SPLITS[spelling]
    call = call.replace("(x, sizes)", "<axis = 1> (x, sizes)")
    whole = sum(sizes) if size is None else size
    outputs = ", ".join(f"double[N, {n}, 3] y{i}" for i, n in enumerate(sizes))
    signature = f"g (double[N, {whole}, 3] x) => ({outputs})"
    like = harness.model(
        f"{signature} {{ y0, y1, y2 = Split <axis = 1> (x, sizes) }}", {"sizes": np.array(sizes)}
    )
    constants = {"sizes": np.array(sizes)} if "sizes" in call else {}
    text = f"{signature} {{ y0, y1, y2 = Split {call} }}"
    return harness.one(text, constants, opset=opset, like=like), sizes


@pytest.mark.parametrize("spelling", SPLITS)
@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2), ()], ids=str)
def test_split_forward(harness: Any, spelling: str, axes: tuple[int, ...]) -> None:
    node, sizes = split(harness, spelling)
    node.forward(harness.affine(0, (2, sum(sizes), 3), axes))


@pytest.mark.parametrize("spelling", SPLITS)
@settings(max_examples=10, deadline=None)
@given(
    asking=st.sets(st.integers(0, 2), min_size=1),
    axes=st.sets(st.integers(1, 2)),
    seed=st.integers(0, 1 << 16),
)
def test_split_backward_joins_what_the_parts_ask(
    harness: Any, spelling: str, asking: set[int], axes: set[int], seed: int
) -> None:
    node, sizes = split(harness, spelling)
    node.backward({i: harness.affine(seed + i, (2, sizes[i], 3), tuple(axes)) for i in asking})


def test_split_parts_that_ask_the_same_need_no_sizes(harness: Any) -> None:
    node, _ = split(harness, "equal", "C")
    affine = harness.affine(0, (2, 1, 3), (2,))
    assert (
        node.backward(dict.fromkeys(range(3), affine), {"x": np.ones((2, 6, 3))}).affines[0].same_as(affine)
    )
    with harness.refused("NF112"):
        node.backward({0: affine})


def test_split_of_an_unknown_size_refuses_a_varying_affine(harness: Any) -> None:
    node, _ = split(harness, "equal", "C")
    with harness.refused("NF112"):
        node.forward(harness.affine(0, (2, 6, 3), (1,)))


def test_split_part_that_nothing_reads_is_free(harness: Any) -> None:
    """[3 read, 3 unread] channels of which the read ones ask uniformly: no size has to be known."""
    text = "g (double[N, C, 3] x) => (double[N, D, 3] a) { a, b = Split <axis = 1, num_outputs = 2> (x) }"
    node = harness.one(text)
    affine = harness.affine(0, (2, 1, 3), (2,))
    assert node.backward({0: affine}, {"x": np.ones((2, 6, 3))}).affines[0].same_as(affine)


def test_split_with_one_unread_part_and_a_varying_other(harness: Any) -> None:
    text = "g (double[N, 6] x) => (double[N, 2] b) { a, b = Split <axis = 1> (x, sizes) }"
    node = harness.one(text, {"sizes": np.array([4, 2])})
    asked = node.backward({1: harness.affine(0, (2, 2), (1,))}).affines[0]
    assert asked.scale.shape == (1, 6)


def test_gated_linear_unit_takes_different_affines_in_its_halves(harness: Any) -> None:
    text = f"""g (double[N, 3, 4] x) => (double[N, 2, 4] y) {{
        c = Conv (x, w) a, b = Split <axis = 1, num_outputs = 2> (c)
        n = {BN} (a, scale, bias, mean, var) g = Sigmoid (b) y = Mul (n, g) }}"""
    constants = {**harness.weights(0, w=(4, 3, 1)), **harness.batchnorm(1, 2)}
    harness.fold(text, constants).gone()


def test_batchnorm_in_front_of_a_split_goes_into_every_reader(harness: Any) -> None:
    text = f"""g (double[N, 4, 5] x) => (double[N, 2, 5] p, double[N, 3, 5] q) {{
        n = {BN} (x, scale, bias, mean, var) a, b = Split <axis = 1> (n, sizes)
        p = Conv (a, v) q = Conv (b, w) }}"""
    constants = {
        **harness.weights(0, v=(2, 1, 1), w=(3, 3, 1)),
        **harness.batchnorm(1, 4),
        "sizes": np.array([1, 3]),
    }
    harness.fold(text, constants).gone()


def test_identity_is_asked_of_a_part_that_asks_nothing(harness: Any) -> None:
    node, sizes = split(harness, "operand")
    asked = node.backward({1: harness.affine(0, (2, sizes[1], 3), (1,))}).affines[0]
    assert isinstance(asked, Affine)
    assert (asked.scale[:, :2] == 1.0).all()
    assert (asked.shift[:, 5:] == 0.0).all()


CHUNKS = """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y, float[N, 4, H, W] z) {
    p = Conv (x, w)
    shape = Shape (p) channels = Gather <axis = 0> (shape, one)
    more = Add (channels, one) part = Div (more, two)
    from = Mul (part, one) to = Mul (part, two)
    q = Slice (p, zero, part, one) k = Slice (p, from, to, one)
    m = Mul (q, c) y = Sigmoid (m) z = Tanh (k) }"""


def test_bounds_that_are_computed_from_a_static_axis(check: Any) -> None:
    """``chunk(2, dim=1)`` of an export with dynamic axes: the channels are known all the same."""
    sizes = {name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2}.items()}
    model = check.model(CHUNKS, check.weights(w=(8, 4, 1, 1)) | sizes | {"c": np.array(0.25, np.float32)})
    assert check(model).counts["Mul"] == 2


def test_bounds_that_are_computed_from_a_dynamic_axis(check: Any) -> None:
    sizes = {name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "axis": 3}.items()}
    text = CHUNKS.replace("(shape, one)", "(shape, axis)")
    model = check.model(text, check.weights(w=(8, 4, 1, 1)) | sizes | {"c": np.array(0.25, np.float32)})
    check(model).kept("NF103")


@pytest.mark.parametrize("sizes", [[2, 3], [2, -1], [7, -1], [2, 2, 2]])
@pytest.mark.parametrize("where", ["behind", "front"])
def test_sizes_that_do_not_fit_are_a_refusal(check: Any, sizes: list[int], where: str) -> None:
    """The checker lets them pass, and no runtime takes them."""
    channels = 2 if where == "behind" else 6
    body = {
        "behind": f"c = Conv (x, w) p, r = Split <axis = 1> (c, sizes) y = {BN} (p, s, b, m, v)",
        "front": f"c = Relu (x) n = {BN} (c, s, b, m, v) p, r = Split <axis = 1> (n, sizes) y = Conv (p, u)",
    }[where]
    model = check.model(
        f"g (float[N, 6, 4, 4] x) => (float[N, A, B, C] y) {{ {body} }}",
        check.weights(w=(6, 6, 1, 1), u=(3, 2, 1, 1))
        | check.batchnorm(channels)
        | {"sizes": np.array(sizes, np.int64)},
    )
    assert [site.action for site in check.fold_only(model).sites] == ["kept"]
