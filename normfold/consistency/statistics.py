"""Streaming statistics per channel, counted in images, in float64.

Pixels of one image are not independent samples, so every image gives one observation of a channel: its mean
and its variance. The spread of those observations from image to image is the sampling noise that drift is
judged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.errors import InputError

Batch = Mapping[str, np.ndarray[Any, Any]]
"""Arrays by input name; axis 0 of each array counts images."""


_BLOCK_ELEMENTS = 1 << 17
"""Elements whose deviations are held at once (1 MiB): little memory, and they stay in the cache."""


@dataclass(frozen=True)
class ImageMoments:
    """What single images give.

    Attributes:
        mean: of each image and channel, shape ``[N, C]``.
        variance: biased, shape ``[N, C]``.
        elements: per channel and image.
    """

    mean: Array64
    variance: Array64
    elements: float

    @property
    def images(self) -> int:
        return int(self.mean.shape[0])

    def joined(self, other: ImageMoments) -> ImageMoments:
        """Further elements of the same images."""
        total = self.elements + other.elements
        share, step = other.elements / total, other.mean - self.mean
        return ImageMoments(
            self.mean + step * share,
            self.variance * (1 - share) + other.variance * share + np.square(step) * (share * (1 - share)),
            total,
        )

    def as_one(self) -> ImageMoments:
        """All images taken for one, shape ``[1, C]``."""
        return ImageMoments(
            self.mean.mean(axis=0, keepdims=True),
            self.variance.mean(axis=0, keepdims=True) + self.mean.var(axis=0, keepdims=True),
            self.elements * self.images,
        )


def image_moments(x: np.ndarray[Any, Any], images: int) -> ImageMoments:
    """Mean and variance of each channel of each image.

    Args:
        x: ``[N, C, *S]`` with elements. ``N`` is ``images``, or a multiple where an axis such as time was
            merged into it, the positions of one image side by side.
        images: number of images behind ``x``. Where ``N`` is no multiple of it, all of ``x`` counts as one.
    """
    count = images if images > 0 and x.shape[0] % images == 0 else 1
    parts = x.astype(np.float64, copy=False).reshape(count, x.shape[0] // count, x.shape[1], -1)
    elements = parts.shape[1] * parts.shape[3]
    means, variances = np.empty((2, count, x.shape[1]))
    step = max(1, _BLOCK_ELEMENTS * count // x.size)
    for start in range(0, count, step):
        block = slice(start, start + step)
        part = parts[block]
        means[block] = part.mean(axis=(1, 3))
        centred = part - means[block, None, :, None]
        variances[block] = np.einsum("nrcp,nrcp->nc", centred, centred) / elements
    return ImageMoments(means, variances, elements)


@dataclass
class ChannelMoments:
    """Mean and variance of each channel over images, and how far they move from image to image.

    Updated by the pairwise form of Welford's algorithm (Chan, Golub, LeVeque 1979), so memory does not grow
    with the number of images and a large mean costs no digits. Every image weighs the same.

    Attributes:
        images: observations so far.
        positions: elements per channel that one image gave.
    """

    images: int = 0
    positions: float = 0.0
    _reference: Array64 = field(default_factory=lambda: np.zeros(0))
    _within: Array64 = field(default_factory=lambda: np.zeros(0))
    # Per image and channel: a, its mean, and u = its variance + (a − reference)².
    _mean: Array64 = field(default_factory=lambda: np.zeros((2, 0)))
    _scatter: Array64 = field(default_factory=lambda: np.zeros((2, 2, 0)))

    def add(self, x: np.ndarray[Any, Any], images: int) -> None:
        """Takes in the input of a normalisation; see ``image_moments``."""
        if x.size:
            self.take(image_moments(x, images))

    def take(self, found: ImageMoments) -> None:
        """Takes in further images."""
        count, means, variances = found.images, found.mean, found.variance
        if not self.images:
            channels = means.shape[1]
            self._reference = means.mean(axis=0)
            self._within = np.zeros(channels)
            self._mean, self._scatter = np.zeros((2, channels)), np.zeros((2, 2, channels))
        offset = means - self._reference
        observed = np.stack([offset, variances + np.square(offset)])
        centre = observed.mean(axis=1)
        spread = observed - centre[:, None]
        total = self.images + count
        step = centre - self._mean
        self._scatter += np.einsum("inc,jnc->ijc", spread, spread)
        self._scatter += np.einsum("ic,jc->ijc", step, step) * (self.images * count / total)
        self._mean = self._mean + step * (count / total)
        self._within = self._within + (variances.mean(axis=0) - self._within) * (count / total)
        self.positions += (found.elements - self.positions) * (count / total)
        self.images = total

    @property
    def mean(self) -> Array64:
        """Population mean, shape ``[C]``."""
        return np.asarray(self._reference + self._mean[0])

    @property
    def variance(self) -> Array64:
        """Biased population variance over images and positions, shape ``[C]``."""
        return self._within + self.between

    @property
    def between(self) -> Array64:
        """The part of the variance that image means make, shape ``[C]``."""
        return np.asarray(self._scatter[0, 0] / max(self.images, 1))

    @property
    def variance_spread(self) -> Array64:
        """Variance from image to image of ``mean((x − mean)²)``, shape ``[C]``."""
        shift = self._mean[0]
        scatter = self._scatter
        moved = scatter[1, 1] - 4 * shift * scatter[0, 1] + 4 * np.square(shift) * scatter[0, 0]
        return np.asarray(np.maximum(moved, 0.0) / max(self.images - 1, 1))


@dataclass
class BatchMoments:
    """The statistics of single batches, averaged over batches: what a running average converges to.

    Attributes:
        batches: how many went in.
        mean: average of the batch means, shape ``[C]``.
        variance: average of the batch variances, shape ``[C]``.
        mean_spread: variance of the batch mean from batch to batch, shape ``[C]``.
        variance_spread: variance of the batch variance from batch to batch, shape ``[C]``.
    """

    batches: int = 0
    mean: Array64 = field(default_factory=lambda: np.zeros(0))
    variance: Array64 = field(default_factory=lambda: np.zeros(0))
    _scatter: Array64 = field(default_factory=lambda: np.zeros((2, 0)))

    def take(self, found: ImageMoments) -> None:
        """Takes in one batch, its variance with Bessel's correction as torch stores it."""
        elements = found.images * found.elements
        whole = found.as_one()
        mean, variance = whole.mean[0], whole.variance[0] * (elements / max(elements - 1, 1))
        if not self.batches:
            self.mean, self.variance = np.zeros_like(mean), np.zeros_like(mean)
            self._scatter = np.zeros((2, mean.size))
        self.batches += 1
        step = np.stack([mean - self.mean, variance - self.variance])
        self.mean = self.mean + step[0] / self.batches
        self.variance = self.variance + step[1] / self.batches
        self._scatter += step * np.stack([mean - self.mean, variance - self.variance])

    @property
    def mean_spread(self) -> Array64:
        return np.asarray(self._scatter[0] / max(self.batches - 1, 1))

    @property
    def variance_spread(self) -> Array64:
        return np.asarray(self._scatter[1] / max(self.batches - 1, 1))


def image_count(batch: Batch) -> int:
    """Images in a batch: the size of axis 0 of the largest input that has one.

    Raises:
        InputError: no input has an axis, so nothing counts images.
    """
    arrays = [array for array in batch.values() if np.ndim(array)]
    if not arrays:
        raise InputError("the data has no axis that counts images")
    return int(max(arrays, key=lambda array: array.size).shape[0])


def rebatched(batches: Iterable[Batch], size: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The same images in batches of ``size``; the last one may be smaller.

    Inputs whose axis 0 does not count images, such as a threshold, keep the value that they had in the first
    batch of each group. Holds at most ``size`` images and one batch more.
    """
    held: list[Batch] = []
    count = 0
    for batch in batches:
        if held and not _joinable(held[0], batch):
            yield from _split(held, size)
            held, count = [], 0
        held.append(batch)
        count += image_count(batch)
        if count >= size:
            *full, rest = _split(held, size)
            yield from full
            held, count = [rest], image_count(rest)
            if count >= size:
                yield rest
                held, count = [], 0
    if held:
        yield from _split(held, size)


def _joinable(first: Batch, other: Batch) -> bool:
    return all(np.shape(first[name])[1:] == np.shape(other[name])[1:] for name in first)


def _split(held: list[Batch], size: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    counts = [image_count(batch) for batch in held]
    joined: dict[str, np.ndarray[Any, Any]] = {}
    counting = set()
    for name in held[0]:
        arrays = [np.asarray(batch[name]) for batch in held]
        if all(a.ndim and a.shape[0] == n for a, n in zip(arrays, counts, strict=True)):
            counting.add(name)
            joined[name] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        else:
            joined[name] = arrays[0]
    return [
        {name: a[start : start + size] if name in counting else a for name, a in joined.items()}
        for start in range(0, max(sum(counts), 1), size)
    ]


def output_names(model: ir.Model) -> list[str]:
    """Names of the graph outputs."""
    return [str(value.name) for value in model.graph.outputs]
