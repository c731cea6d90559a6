"""What paired times say: medians, and how sure a ratio is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """Two models timed in turns.

    Attributes:
        a: median of the first model's times.
        b: the same of the second.
        spread_a: interquartile range of the first model's times relative to their median.
        spread_b: the same of the second.
        speedup: median of the ratios of each round, A by B.
        interval: 95 % bootstrap interval of ``speedup``.
    """

    a: float
    b: float
    spread_a: float
    spread_b: float
    speedup: float
    interval: tuple[float, float]


def compare(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Comparison:
    """Compares times that were taken in the same rounds.

    The ratio is taken within each round, where both models met the same state of the machine; the percentile
    bootstrap (Efron 1979) draws whole rounds.

    Args:
        a: seconds of the first model, shape ``[rounds]``.
        b: seconds of the second, shape ``[rounds]``.
        seed: of the bootstrap.
    """
    ratios = a / b
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return Comparison(
        float(np.median(a)),
        float(np.median(b)),
        _spread(a),
        _spread(b),
        float(np.median(ratios)),
        (float(low), float(high)),
    )


def _spread(times: np.ndarray) -> float:
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    return float((high - low) / middle)
