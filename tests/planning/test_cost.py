"""Elements compared without knowing symbolic dimensions: against every size that they can have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.planning.cost import Elements, fits_batchnorm, is_bias, is_per_channel, passes
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import VirtualAffine

Dims = tuple[int | str | None, ...]
SYMBOLS = ("N", "H", "W")


def elements(*values: Dims | None) -> Elements:
    total = Elements()
    for index, dims in enumerate(values):
        total.add(dims, unknown=f"v{index}")
    return total


def counted(values: Sequence[Dims], sizes: dict[str, int]) -> int:
    total = 0
    for dims in values:
        product = 1
        for dim in dims:
            assert dim is not None
            product *= dim if isinstance(dim, int) else sizes[dim]
        total += product
    return total


dims = st.lists(st.one_of(st.integers(1, 4), st.sampled_from(SYMBOLS)), max_size=3).map(tuple)


@settings(max_examples=200, deadline=None)
@given(left=st.lists(dims, max_size=3), right=st.lists(dims, max_size=3))
def test_what_is_claimed_holds_for_every_size(left: list[Dims], right: list[Dims]) -> None:
    few, many = elements(*left), elements(*right)
    for sizes in itertools.product((1, 2, 5), repeat=len(SYMBOLS)):
        known = dict(zip(SYMBOLS, sizes, strict=True))
        a, b = counted(left, known), counted(right, known)
        if few.at_most(many):
            assert a <= b
        if few.below(many):
            assert a < b


@given(st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), max_size=3))
def test_static_shapes_are_just_numbers(values: list[Dims]) -> None:
    assert elements(*values).number == counted(values, {})


def test_equal_is_at_most_and_not_below() -> None:
    a, b = elements(("N", 4, "H")), elements(("H", "N", 4))
    assert a.at_most(b) and b.at_most(a) and not a.below(b)


def test_a_channel_less_is_below_with_any_batch() -> None:
    assert elements(("N", 3, "H")).below(elements(("N", 4, "H")))
    assert not elements(("N", 4, "H")).below(elements(("N", 3, "H")))


def test_a_symbolic_dimension_may_be_one() -> None:
    assert elements((4,)).at_most(elements(("N", 4)))
    assert not elements((4,)).below(elements(("N", 4)))
    assert not elements(("N", 4)).at_most(elements((4,)))


def test_unknown_dimensions_are_equal_to_themselves_only() -> None:
    one, other = Elements(), Elements()
    one.add((4, None), unknown="a")
    other.add((4, None), unknown="b")
    assert one.at_most(one.copy()) and not one.at_most(other)
    assert elements(None).number is None


def test_two_passes_count_twice() -> None:
    once, twice = Elements(), Elements()
    once.add(("N", 4))
    twice.add(("N", 4), 2)
    assert once.below(twice) and not twice.at_most(once)


def test_nothing_is_at_most_anything() -> None:
    assert Elements().at_most(Elements()) and not Elements().below(Elements())
    assert Elements().below(elements((1,)))


def test_sums() -> None:
    total = elements(("N", 4)) + elements(("N", 3)) + elements((2,))
    assert elements(("N", 7)).below(total) and not elements(("N", 9), (1,)).below(total)


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (Affine.of(1.0, np.array([1.0, 2.0, 3.0]), rank=2), True),
        (Affine.of(1.0, 2.0, rank=2), True),
        (Affine.of(1.0, np.array([[1.0], [2.0]]), rank=2), False),
        (Affine.of(2.0, np.array([1.0, 2.0, 3.0]), rank=2), False),
    ],
    ids=["a number for each column", "one number", "a number for each row", "with a scale"],
)
def test_what_is_the_bias_of_a_matmul(affine: Affine, expected: bool) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 20]> g (float[2, 4] x) => (float[2, 3] y)
        <float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}> { y = MatMul (x, w) }"""
    )
    working = ir.from_proto(model)
    assert is_bias(affine, working.graph.outputs[0], Workspace(working)) is expected


@pytest.mark.parametrize("axis", [1, 2])
def test_a_batchnorm_that_varies_over_the_positions_is_none_any_more(axis: int) -> None:
    affine = Affine.on_axis(np.array([1.0, 2.0]), np.array([3.0, 4.0]), axis=axis, rank=4)
    assert fits_batchnorm(affine, from_batchnorm=True) is (axis == 1)


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("scale", [np.array([2.0, 3.0]), np.array([2.0, 2.0])], ids=["per channel", "equal"])
def test_equal_numbers_cost_no_more_than_others(rank: int, scale: np.ndarray) -> None:
    """Else it would pay to bring together what only rounding tells apart."""
    affine = Affine.on_axis(scale, 5.0, axis=1, rank=rank)
    assert passes(affine, per_channel=True) == (2 if rank == 2 else 1)


@pytest.mark.parametrize("channels", ["4", "C"])
@pytest.mark.parametrize("shift", [np.arange(4.0), np.ones(4)], ids=["varies", "is one number"])
def test_what_is_thought_of_as_per_channel(channels: str, shift: np.ndarray) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 20]>
        g (float[2, {channels}, 5] x) => (float[2, {channels}, 5] y) {{ y = Relu (x) }}"""
    )
    working = ir.from_proto(model)
    workspace, value = Workspace(working), working.graph.outputs[0]
    content = VirtualAffine(Affine.on_axis(1.0, shift, axis=1, rank=3))
    assert is_per_channel(value, workspace, content) is (channels == "4" and bool(shift[0] != shift[1]))
    content.varied = True
    assert is_per_channel(value, workspace, content) is (channels == "4")
