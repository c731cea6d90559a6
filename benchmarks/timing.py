"""Inference times of several models side by side on onnxruntime's CPU provider."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

Arrays = Mapping[str, np.ndarray]

# Long enough for the clock, short enough that a disturbance spoils one round only.
_SAMPLE_SECONDS = 2e-3


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of a ratio of times, with a 95 % bootstrap interval."""

    median: float
    lower: float
    upper: float


def session(path: Path) -> ort.InferenceSession:
    """One thread, no spinning, all optimisations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interleaved(
    sessions: Mapping[str, ort.InferenceSession], feeds: Arrays, rounds: int
) -> dict[str, np.ndarray]:
    """Processor seconds per run, [rounds] for each session. Each round runs all, in an order of its own."""
    rng = np.random.default_rng(0)
    names = list(sessions)
    seconds = {name: np.zeros(rounds) for name in names}
    first = {name: _sample(sessions[name], feeds, 3) for name in names}
    repeats = max(1, round(_SAMPLE_SECONDS / min(first.values())))
    for index in range(rounds):
        for name in rng.permutation(names):
            seconds[name][index] = _sample(sessions[name], feeds, repeats)
    return seconds


def ratio(own: np.ndarray, other: np.ndarray) -> Ratio:
    """``own / other``, round by round."""
    ratios = own / other
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    lower, upper = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return Ratio(float(np.median(ratios)), float(lower), float(upper))


def _sample(one: ort.InferenceSession, feeds: Arrays, repeats: int) -> float:
    """Processor seconds of this thread, in which all of a run happens: other processes do not count."""
    start = time.thread_time()
    for _ in range(repeats):
        one.run(None, feeds)
    return (time.thread_time() - start) / repeats
