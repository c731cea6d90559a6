"""The algebra of affines, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine, alike, along, move_axes, summed, vector


@st.composite
def affines(draw: st.DrawFn, dims: tuple[int, ...]) -> Affine:
    rng = np.random.default_rng(draw(st.integers(0, 999)))

    def array(offset: float) -> np.ndarray:
        shape = [draw(st.sampled_from([1, size])) for size in dims]
        return rng.standard_normal(shape) + offset

    return Affine.of(array(2.0), array(0.0), rank=len(dims))


SHAPE = (2, 3, 4)


@settings(deadline=None)
@given(inner=affines(SHAPE), outer=affines(SHAPE), seed=st.integers(0, 9))
def test_then_applies_one_after_the_other(inner: Affine, outer: Affine, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(SHAPE)
    np.testing.assert_allclose(
        inner.then(outer).apply(x), outer.apply(inner.apply(x)), rtol=1e-12, atol=1e-12
    )


@settings(deadline=None)
@given(affine=affines(SHAPE))
def test_shift_first_then_the_scale_is_the_same(affine: Affine) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE)
    early = affine.shift_first()
    assert early is not None and not early.has_scale
    np.testing.assert_allclose(
        affine.only_scale().apply(early.apply(x)), affine.apply(x), rtol=1e-10, atol=1e-12
    )


def test_a_zero_scale_has_no_shift_in_front() -> None:
    assert Affine.on_axis(np.array([1.0, 0.0]), 1.0, axis=1, rank=2).shift_first() is None


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_equal_numbers_are_kept_once(rank: int) -> None:
    affine = Affine.of(np.full((5,) * rank, 2.0), np.zeros((5,) * rank), rank=rank)
    assert affine.scale.shape == affine.shift.shape == (1,) * rank
    assert affine.axes == () and affine.has_scale and not affine.has_shift


def test_trailing_axes_are_aligned() -> None:
    affine = Affine.of(np.arange(3.0), np.arange(2.0).reshape(2, 1), rank=4)
    assert affine.scale.shape == (1, 1, 1, 3) and affine.shift.shape == (1, 1, 2, 1)
    assert affine.axes == (2, 3)


def test_what_is_an_identity() -> None:
    assert Affine.of(rank=3).is_identity
    assert not Affine.of(-1.0, rank=3).is_identity
    assert not Affine.of(1.0, 1e-300, rank=3).is_identity


def test_infinite_constants_are_seen() -> None:
    assert not Affine.of(np.array([1.0, np.inf]), rank=1).is_finite
    assert not Affine.of(1.0, np.array([1.0, np.nan]), rank=1).is_finite


def test_ranks_must_agree() -> None:
    with pytest.raises(ValueError, match="rank"):
        Affine(np.ones((1, 1)), np.zeros((1,)))


def test_same_as_compares_values() -> None:
    a = Affine.on_axis(np.arange(3.0), 0.0, axis=1, rank=2)
    assert a.same_as(Affine.on_axis(np.arange(3.0), 0.0, axis=1, rank=2))
    assert not a.same_as(Affine.on_axis(np.arange(3.0), 0.0, axis=0, rank=2))
    assert not a.same_as(a.then(Affine.of(1.0, 1.0, rank=2)))


def test_channel_broadcasts_what_is_uniform() -> None:
    scale, shift = Affine.on_axis(np.arange(3.0), 7.0, axis=1, rank=4).channel(1, 3)
    np.testing.assert_array_equal(scale, [0, 1, 2])
    np.testing.assert_array_equal(shift, [7, 7, 7])


def test_an_outer_product_outgrows_its_factors() -> None:
    rows = Affine.on_axis(np.arange(3.0), 0.0, axis=0, rank=2)
    columns = Affine.on_axis(np.arange(4.0), 0.0, axis=1, rank=2)
    assert rows.then(columns).outgrows(rows, columns)
    assert not rows.then(rows).outgrows(rows, rows)
    scalar = Affine.of(2.0, 1.0, rank=2)
    assert not scalar.then(rows).outgrows(scalar, rows)


def test_axes_move() -> None:
    array = np.arange(6.0).reshape(2, 1, 3)
    np.testing.assert_array_equal(move_axes(array, [2, 0, None]), array.transpose(2, 0, 1).reshape(3, 2, 1))
    assert along(np.arange(4.0), 2, 4).shape == (1, 1, 4, 1)
    np.testing.assert_array_equal(vector(np.array([[5.0]]), 1, 3), [5, 5, 5])


def test_what_undoes_itself_leaves_nothing() -> None:
    rng = np.random.default_rng(0)
    factor, offset = rng.uniform(0.1, 10.0, 1000), rng.standard_normal(1000)
    there = Affine.on_axis(factor, offset, axis=1, rank=2)
    back = Affine.on_axis(1.0 / factor, -offset * (1.0 / factor), axis=1, rank=2)
    assert there.then(back).is_identity
    assert back.then(there).is_identity


def test_what_is_near_one_stays() -> None:
    near = Affine.on_axis(np.array([1.0 + 1e-15, 1.0 - 1e-15]), np.array([1e-30, 0.0]), axis=1, rank=2)
    assert near.then(Affine.of(rank=2)).same_as(near)


def test_what_differs_by_rounding_alone_is_one_number() -> None:
    """``t = s·c`` and then ``t/s``: c, computed of other numbers for each channel."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 10.0, 1000)
    shift = scale * 1.1
    early = Affine.on_axis(scale, shift, axis=1, rank=2).shift_first()
    assert early is not None and len(np.unique(shift / scale)) > 1
    assert early.axes == () and early.shift.item() == pytest.approx(1.1, rel=1e-15)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_differs_by_more_than_rounding_varies(place: int) -> None:
    values = np.ones(3)
    values[place] += 2.0**-48
    varying = Affine.on_axis(1.0, values, axis=1, rank=2)
    assert varying.axes == (1,)
    assert not varying.same_as(Affine.on_axis(1.0, 2.0 - values, axis=1, rank=2))


def test_infinities_and_nan_are_compared() -> None:
    values = np.array([np.inf, np.inf, -np.inf, np.nan, 1.0])
    others = np.array([np.inf, 1.0, np.inf, np.nan, np.inf])
    np.testing.assert_array_equal(alike(values, others), [True, False, False, False, False])


def test_sums_that_cancel_leave_nothing() -> None:
    thirds = np.array([1.0, 10.0]) / 3.0
    np.testing.assert_array_equal(summed(thirds, -thirds * (1 + 2.0**-52)), [0.0, 0.0])
    np.testing.assert_array_equal(summed(thirds, -thirds * (1 + 2.0**-49)) != 0.0, [True, True])
