"""How far running statistics are from those of data, and whether sampling explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from normfold.affine import Array64
from normfold.consistency.layers import NormLayer
from normfold.consistency.statistics import ChannelMoments

LEAST_IMAGES = 64
"""Below this, sampling noise hides all but gross departures."""

HONEST_IMAGES = 192
"""Images that a running average of honest training stands for, about: 19 batches of 8 are 152."""

LEAST_Z, LEAST_LOG_RATIO = 0.12, 0.20
"""Departures smaller than this, as root mean square over channels, move no output that matters."""

_CHANNEL_Z, _CHANNEL_LOG_RATIO = 3.0, math.log(100.0)
_SIGMAS = 8.0


@dataclass(frozen=True)
class Departure:
    """The input of one layer over the data against the layer's running statistics; arrays of shape ``[C]``.

    Attributes:
        z: mean of the data minus running mean, in running standard deviations (epsilon included).
        log_variance_ratio: logarithm of variance of the data over running variance, epsilon added to both.
        kl: Kullback–Leibler divergence of the data from the running statistics, both taken as Gaussian, in
            nats.
        z_noise: standard error of ``z``: of these images, and of those that the running statistics are of.
        log_variance_noise: the same of ``log_variance_ratio``.
    """

    z: Array64
    log_variance_ratio: Array64
    kl: Array64
    z_noise: Array64
    log_variance_noise: Array64

    @property
    def finite(self) -> bool:
        """Whether the data and the statistics are numbers everywhere."""
        return bool(np.isfinite(self.z).all() and np.isfinite(self.log_variance_ratio).all())

    @property
    def z_rms(self) -> float:
        return rms(self.z)

    @property
    def log_variance_rms(self) -> float:
        return rms(self.log_variance_ratio)

    @property
    def score(self) -> float:
        """Mean divergence over channels, infinite where it is no number: what layers are ranked by."""
        value = float(self.kl.mean()) if self.kl.size else 0.0
        return value if math.isfinite(value) else math.inf

    @property
    def beyond_noise(self) -> bool:
        """Whether the layer as a whole departs: by more than noise explains, and by enough to matter."""
        if not self.finite:
            return True
        limit = _noise_limit(self.z.size)
        return (self.z_rms > LEAST_Z and _excess(self.z, self.z_noise) > limit) or (
            self.log_variance_rms > LEAST_LOG_RATIO
            and _excess(self.log_variance_ratio, self.log_variance_noise) > limit
        )

    @property
    def channels(self) -> list[int]:
        """Single channels that are far off, whatever the layer as a whole does."""
        far = (np.abs(self.z) > np.maximum(_CHANNEL_Z, _SIGMAS * self.z_noise)) | (
            np.abs(self.log_variance_ratio)
            > np.maximum(_CHANNEL_LOG_RATIO, _SIGMAS * self.log_variance_noise)
        )
        return [int(channel) for channel in np.flatnonzero(far)]


def images_behind(layer: NormLayer) -> int:
    """Images that the running statistics stand for: as many as honest training, or as the model says.

    Never fewer than it takes to judge, so that no record hides a departure.
    """
    return min(HONEST_IMAGES, max(layer.images or HONEST_IMAGES, LEAST_IMAGES))


def departure(moments: ChannelMoments, layer: NormLayer) -> Departure:
    """Compares the input of a layer with its running statistics."""
    with np.errstate(all="ignore"):
        running, observed = layer.var + layer.epsilon, moments.variance + layer.epsilon
        z = (moments.mean - layer.mean) / np.sqrt(running)
        ratio = observed / running
        sampling = 1.0 / max(moments.images, 1) + 1.0 / images_behind(layer)
        return Departure(
            z=z,
            log_variance_ratio=np.log(ratio),
            kl=0.5 * (ratio + np.square(z) - 1.0 - np.log(ratio)),
            z_noise=np.sqrt(moments.between * sampling / running),
            log_variance_noise=np.sqrt(moments.variance_spread * sampling) / observed,
        )


def _excess(values: Array64, noise: Array64) -> float:
    """Mean square in units of the noise."""
    with np.errstate(all="ignore"):
        return float(np.square(values / np.maximum(noise, 1e-9)).mean())


def _noise_limit(channels: int) -> float:
    """What the mean of ``channels`` squares of noise stays under, channels being as good as half as many."""
    return max(1.7, 1.0 + 4.0 * math.sqrt(4.0 / max(channels, 1)))


def rms(values: Array64) -> float:
    """Root of the mean square; 0 of nothing."""
    return math.sqrt(float(np.square(values).mean())) if values.size else 0.0
