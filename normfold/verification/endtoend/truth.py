"""What outputs are compared with: a float64 reference, or the original and its response to noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from normfold.inputs.drawing import Arrays, is_floating
from normfold.runtime.client import Runtime
from normfold.verification.endtoend.noise import FACTOR, noisy_batches, noisy_models
from normfold.verification.endtoend.providers import Outcome, run_model
from normfold.verification.endtoend.reference import Reference, largest_change
from normfold.verification.rounding import ulp

DISTRUST = 64.0
"""Where onnxruntime is this many times further from the float64 evaluation than the same evaluator in the
model's own types, the evaluator computes something else, and its reference is not used."""


@dataclass(frozen=True)
class Truth:
    """What outputs are compared with.

    Attributes:
        runs: what is right, for each run.
        response: how far each output of the original moves when what is rounded is rounded anew, and from run
            to run.
        source: where the bound comes from.
    """

    runs: Sequence[Arrays]
    response: Mapping[str, float]
    source: Literal["float64", "noise"]


def from_reference(reference: Reference, base: Outcome) -> Truth:
    """The float64 reference.

    Args:
        reference: of the original.
        base: what the original did on the provider.
    """
    return Truth(reference.runs, _larger(reference.response, base.spread), "float64")


def from_noise(response: Mapping[str, float], base: Outcome) -> Truth:
    """What the original computes itself, with its response to noise."""
    runs = [
        {name: array.astype(np.float64) if is_floating(array.dtype) else array for name, array in run.items()}
        for run in base.runs
    ]
    return Truth(runs, _larger(response, base.spread), "noise")


def distrusted(
    reference: Reference, base: Outcome, outputs: Sequence[str], saturating: Collection[str]
) -> str | None:
    """Why a float64 reference is not to be used, ``None`` where it is.

    Args:
        reference: of the original.
        base: what the original did on a provider.
        outputs: names of its outputs.
        saturating: those that come out of sigmoids and the like.
    """
    for output in outputs:
        truth, native, ran = reference.runs[0][output], reference.native[output], base.runs[0][output]
        if not is_floating(ran.dtype) or truth.shape != ran.shape or not truth.size:
            continue
        own, there = largest_change(native, truth), largest_change(ran, truth)
        peak = largest_change(truth, np.zeros_like(truth))
        # Runtimes compute sigmoids to an absolute accuracy, however small the value.
        floor = ulp(max(peak, 1.0) if output in saturating else peak, ran.dtype)
        if there > DISTRUST * max(own, floor):
            return f"onnxruntime and the evaluator disagree on output '{output}' by {there:.2g}"
    return None


def noise_response(
    runtime: Runtime,
    original: ir.Model,
    provider: str,
    batches: Sequence[Arrays],
    base: Outcome,
    seed: int,
) -> dict[str, float] | None:
    """How far the original's outputs move under noise of two units in the last place of weights and inputs.

    Args:
        runtime: the child process.
        original: the model.
        provider: full name of the execution provider.
        batches: inputs of each run.
        base: what the original did there without noise.
        seed: of the noise.

    Returns:
        The response by output; ``None`` where the model with noise does not run.
    """
    outputs = list(base.runs[0])
    response = dict.fromkeys(outputs, 0.0)
    noisy = noisy_batches(batches, seed)
    for path in noisy_models(original, runtime.folder, seed):
        moved = run_model(runtime, path, provider, noisy, outputs, optimize=False)
        if moved.status != "ok":
            return None
        for run, other in zip(base.runs, moved.runs, strict=True):
            for name in outputs:
                response[name] = max(response[name], largest_change(run[name], other[name]))
    return {name: FACTOR * change for name, change in response.items()}


def _larger(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: max(a.get(name, 0.0), b.get(name, 0.0)) for name in {*a, *b}}
