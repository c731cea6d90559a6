"""Starts the timing process and reads its answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normfold.runtime.client import RuntimeCrashed, RuntimeRefused
from normfold.runtime.execution_providers import CUDA
from normfold.runtime.processes import command

ROUND_SECONDS = 0.01
"""What a round of one model should take at least: far above the resolution of clocks."""

WARMUP_SECONDS = 0.2

DEVICES = {CUDA: "cuda"}
"""Where inputs and outputs stay between runs, by provider; elsewhere each run copies them."""


@dataclass(frozen=True)
class Times:
    """Seconds per run.

    Attributes:
        a: of the first model, shape ``[rounds]``.
        b: of the second, shape ``[rounds]``.
        runs_per_round: runs of each model that one entry is the mean of.
        io_binding: whether inputs and outputs stayed on the device.
    """

    a: np.ndarray
    b: np.ndarray
    runs_per_round: int
    io_binding: bool


def time_pair(
    models: tuple[Path, Path],
    provider: str,
    inputs: Mapping[str, np.ndarray],
    *,
    options: Mapping[str, str] | None = None,
    threads: int,
    rounds: int,
    timeout_seconds: float,
    folder: Path,
) -> Times:
    """Times two model files in turns, in a process of their own.

    Args:
        models: the files.
        provider: full name of the execution provider.
        inputs: of both models, by name.
        options: of the provider.
        threads: intra-op threads; 0 leaves the choice to onnxruntime.
        rounds: how often they take turns.
        timeout_seconds: limit for all of it.
        folder: for a temporary file.

    Raises:
        RuntimeRefused: onnxruntime gave a reason.
        RuntimeCrashed: the process died or took too long.
    """
    feeds = folder / "bench-feeds.npz"
    np.savez(feeds, *(array.astype(str) if array.dtype.kind == "O" else array for array in inputs.values()))
    request = {
        "models": [str(model) for model in models],
        "provider": provider,
        "options": dict(options or {}),
        "device": DEVICES.get(provider),
        "feeds": str(feeds),
        "names": list(inputs),
        "threads": threads,
        "rounds": rounds,
        "warmup_seconds": WARMUP_SECONDS,
        "round_seconds": ROUND_SECONDS,
    }
    try:
        done = subprocess.run(
            command("timing"),
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeCrashed(f"not done within {timeout_seconds:g} s") from None
    if not done.stdout:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise RuntimeCrashed(f"the timing process ended with {how}")
    answer = json.loads(done.stdout)
    if not answer["ok"]:
        raise RuntimeRefused(answer["error"])
    a, b = (np.asarray(times) for times in answer["times"])
    return Times(a, b, answer["runs_per_round"], answer["io_binding"])
