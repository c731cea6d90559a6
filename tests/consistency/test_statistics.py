"""Streaming moments against numpy over everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from normfold.consistency.statistics import (
    BatchMoments,
    ChannelMoments,
    image_count,
    image_moments,
    rebatched,
)
from normfold.errors import InputError

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("shape", [(23, 3), (23, 3, 5), (23, 3, 4, 2)])
def test_moments_are_those_of_all_images(shape: tuple[int, ...], offset: float) -> None:
    x = RNG.normal(offset, 2, shape) + RNG.normal(0, 3, (shape[0], shape[1], *[1] * (len(shape) - 2)))
    moments = ChannelMoments()
    for part in np.split(x, [1, 8, 20]):
        moments.add(part, len(part))
    axes = (0, *range(2, x.ndim))
    tolerance = 1e-12 * max(offset, 1.0)
    np.testing.assert_allclose(moments.mean, x.mean(axes), rtol=tolerance)
    np.testing.assert_allclose(moments.variance, x.var(axes), rtol=max(tolerance, 1e-9 if offset else 0))
    means = x.reshape(23, 3, -1).mean(2)
    np.testing.assert_allclose(moments.between, means.var(0), rtol=1e-9)
    squares = np.square(x.reshape(23, 3, -1) - x.mean(axes)[:, None]).mean(2)
    np.testing.assert_allclose(moments.variance_spread, squares.var(0, ddof=1), rtol=1e-6)


def test_positions_of_one_image_are_one_observation() -> None:
    tokens = RNG.normal(size=(4, 6, 3)) + RNG.normal(0, 5, (4, 1, 3))
    merged, apart = ChannelMoments(), ChannelMoments()
    merged.add(tokens.reshape(24, 3), 4)
    apart.add(tokens.transpose(0, 2, 1), 4)
    assert merged.images == 4
    np.testing.assert_allclose(merged.between, apart.between)
    np.testing.assert_allclose(merged.variance, apart.variance)


def test_batch_moments() -> None:
    batches = [RNG.normal(i, 1, (6, 2, 3)) for i in range(5)]
    moments = BatchMoments()
    for batch in batches:
        moments.take(image_moments(batch, len(batch)))
    means = np.array([b.mean((0, 2)) for b in batches])
    variances = np.array([b.var((0, 2), ddof=1) for b in batches])
    np.testing.assert_allclose(moments.mean, means.mean(0))
    np.testing.assert_allclose(moments.variance, variances.mean(0))
    np.testing.assert_allclose(moments.mean_spread, means.var(0, ddof=1))
    np.testing.assert_allclose(moments.variance_spread, variances.var(0, ddof=1))


@pytest.mark.parametrize("size", [1, 3, 4, 7, 50])
def test_rebatching_keeps_images_and_their_order(size: int) -> None:
    x = np.arange(23.0).reshape(23, 1)
    threshold = np.float32(0.5)
    parts = [{"x": x[i : i + 5], "t": threshold} for i in range(0, 23, 5)]
    out = list(rebatched(parts, size))
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in out]), x)
    assert [len(b["x"]) for b in out[:-1]] == [size] * (len(out) - 1)
    assert all(b["t"] == threshold for b in out)


def test_images_of_other_sizes_are_not_joined() -> None:
    parts = [{"x": np.zeros((2, 1, s))} for s in (3, 3, 4)]
    assert [b["x"].shape for b in rebatched(parts, 8)] == [(4, 1, 3), (2, 1, 4)]


def test_data_without_images() -> None:
    with pytest.raises(InputError, match="no axis"):
        image_count({"t": np.float32(1)})
