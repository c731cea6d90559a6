"""Noise of images is told from everything else by its directions: few images vary in few of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from normfold.consistency.explanation.batch_noise import BatchHypothesis, choose, rival
from normfold.consistency.explanation.image_scatter import ImageScatter, image_scatter
from normfold.consistency.training import running_layers

PIXELS, CHANNELS = 6, 24


def images(count: int, seed: int) -> np.ndarray:
    """Rows whose pixels move together."""
    rng = np.random.default_rng(100 + seed)
    mixed = np.random.default_rng(9).normal(size=(PIXELS, PIXELS))
    return (rng.normal(1.0, 1.0, (count, PIXELS)) @ mixed).astype(np.float32)


def weights() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(PIXELS, CHANNELS))


def one_layer(mean: np.ndarray, w: np.ndarray) -> ir.Model:
    """Linear, with a BatchNormalization behind that has these running means."""
    channels = w.shape[1]
    parts = {"w": w, "g": np.ones(channels), "b": np.zeros(channels), "m": mean, "v": np.ones(channels)}
    listed = ", ".join(
        f"float{list(a.shape)} {name} = {{{', '.join(repr(float(v)) for v in a.ravel())}}}"
        for name, a in parts.items()
    )
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> main (float[N,{PIXELS}] x) => (float[N,{channels}] y) '
        f"<{listed}> {{ z = MatMul(x, w) y = BatchNormalization(z, g, b, m, v) }}"
    )


def measured(mean: np.ndarray, count: int = 300, w: np.ndarray | None = None) -> ImageScatter | None:
    """Of these running means, on ``count`` images."""
    model, data = one_layer(mean, weights() if w is None else w), images(count, 0)
    return image_scatter(
        model, running_layers(model), [{"x": data[start : start + 50]} for start in range(0, count, 50)]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("averaged", [4, 16, 64])
def test_the_mean_of_as_many_images_is_explained(averaged: int, seed: int) -> None:
    """Four times as many channels as pixels: in most directions images never differ."""
    found = measured(images(averaged, 10 + seed).astype(np.float64).mean(0) @ weights())
    assert found is not None and found.explained_by(averaged)
    assert averaged > 4 or not found.explained_by(1000)


@pytest.mark.parametrize("seed", range(5))
def test_weights_that_moved_a_little_are_no_noise(seed: int) -> None:
    """Channel by channel the means are no further off than those of some dozens of images."""
    rng = np.random.default_rng(100 + seed)
    data = images(300, 0).astype(np.float64)
    mean = data.mean(0) @ (weights() + 0.05 * rng.normal(size=(PIXELS, CHANNELS)))
    z = data @ weights()
    alone = float((np.square(mean - z.mean(0)) / z.var(0)).mean())
    assert alone < 1 / 20
    found = measured(mean)
    assert found is not None and not found.explained_by(20)


def test_distance_is_that_of_mahalanobis() -> None:
    """By numpy's own inverse, where every direction varies and the ridge does little."""
    w = np.linalg.qr(weights()[:, :PIXELS])[0]
    z = images(300, 0).astype(np.float64) @ np.linalg.inv(np.random.default_rng(9).normal(size=(6, 6))) @ w
    mean = z.mean(0) + 0.3 * np.random.default_rng(1).normal(size=PIXELS)
    whole = np.linalg.inv(np.random.default_rng(9).normal(size=(6, 6))) @ w
    found = measured(mean, w=whole)
    off = mean - z.mean(0)
    expected = off @ np.linalg.inv(np.cov(z.T)) @ off * (300 - PIXELS - 2) / 300
    assert found is not None
    assert found.square * found.freedom == pytest.approx(expected, rel=0.03)
    assert found.freedom == pytest.approx(PIXELS, rel=0.03)


def test_too_few_images_tell_nothing() -> None:
    assert measured(np.zeros(CHANNELS), count=31) is None
    assert measured(np.zeros(CHANNELS), count=32) is not None


def test_statistics_that_are_no_numbers_tell_nothing() -> None:
    model = one_layer(np.zeros(CHANNELS), weights())
    (layer,) = running_layers(model)
    samples = [{"x": images(100, 0)}]
    assert image_scatter(model, [layer], samples) is not None
    assert image_scatter(model, [dataclasses.replace(layer, mean=np.full(CHANNELS, np.nan))], samples) is None


def hypothesis(size: int, momentum: float, likelihood: float, misfit: float = 1.0) -> BatchHypothesis:
    return BatchHypothesis(size, momentum, likelihood, misfit, misfit)


SHORT, TINY, HONEST = hypothesis(32, 0.9, 100), hypothesis(4, 0.1, 90), hypothesis(8, 0.1, 10, 5.0)
ANY, NONE = ImageScatter(1 / 39, 10.0, 300), ImageScatter(2.0, 10.0, 300)


def test_noise_that_does_not_explain_the_directions_is_not_blamed() -> None:
    ranked = [SHORT, TINY, HONEST]
    assert choose(ranked, 0.0, ANY) is SHORT and choose(ranked, 0.0, None) is SHORT
    assert choose(ranked, 0.0, NONE) is None
    # Whatever excuses a departure needs no such proof.
    excuse = hypothesis(8, 0.1, 10)
    assert choose([SHORT, excuse], 0.0, NONE) is excuse


def test_a_rival_is_named_only_where_it_is_as_good() -> None:
    assert rival(SHORT, [SHORT, TINY], ANY) is TINY
    assert rival(SHORT, [SHORT, TINY], NONE) is None
    assert rival(SHORT, [SHORT, hypothesis(4, 0.1, 69)], ANY) is None
    assert rival(SHORT, [SHORT, hypothesis(4, 0.1, 90, 2.5)], ANY) is None
    assert rival(TINY, [SHORT, TINY], ANY) is None
