"""Medians and intervals, against times of known ratio."""

from __future__ import annotations

import numpy as np
import pytest

from normfold.benchmarking.statistics import compare


def paired(ratio: float, noise: float, rounds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times that share the state of the machine in each round."""
    rng = np.random.default_rng(seed)
    machine = np.exp(rng.normal(0, 0.5, rounds))
    b = machine * np.exp(rng.normal(0, noise, rounds))
    return ratio * machine * np.exp(rng.normal(0, noise, rounds)), b


def test_exact_ratio() -> None:
    b = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    found = compare(1.5 * b, b)
    assert found.speedup == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))
    assert (found.a, found.b) == (6.0, 4.0)
    assert found.spread_b == pytest.approx((8 - 2) / 4)


def test_what_both_models_suffer_cancels() -> None:
    a, b = paired(1.1, 0.01, 40, 0)
    found = compare(a, b)
    assert found.speedup == pytest.approx(1.1, abs=0.01)
    assert found.interval[1] - found.interval[0] < 0.02 < found.spread_a


def test_interval_covers_the_truth() -> None:
    covered = 0
    for seed in range(200):
        low, high = compare(*paired(1.2, 0.05, 30, seed), seed).interval
        covered += low <= 1.2 <= high
    assert 180 <= covered <= 200


def test_same_seed_same_interval() -> None:
    a, b = paired(1.0, 0.05, 30, 1)
    assert compare(a, b, 7) == compare(a, b, 7)
