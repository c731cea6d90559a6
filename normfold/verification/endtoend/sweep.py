"""All runs of two models on one provider that a comparison needs, in an order in which the first failure of
the original ends them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normfold.inputs.drawing import Arrays
from normfold.runtime.client import Runtime
from normfold.runtime.execution_providers import CPU
from normfold.verification.endtoend.providers import Outcome, relaxed_options, run_model

OPTIMISER_SECONDS = 20.0
"""Time that onnxruntime may take to optimise a model: it is quadratic in the number of nodes."""


@dataclass
class Sweep:
    """What two models did on one provider.

    Attributes:
        original: the original by optimisation level; with optimisations on only where it ran without.
        folded: the folded model likewise.
        relaxed: both models with TF32, by name, where the provider has such a thing.
    """

    original: dict[bool, Outcome]
    folded: dict[bool, Outcome] = field(default_factory=dict)
    relaxed: dict[str, Outcome] = field(default_factory=dict)


def sweep(
    runtime: Runtime,
    files: tuple[Path, Path],
    provider: str,
    batches: Sequence[Arrays],
    outputs: Sequence[str],
    *,
    known: Outcome | None = None,
    patient: bool = False,
) -> Sweep:
    """Runs both models on one provider.

    Args:
        runtime: the child process.
        files: the original and the folded model.
        provider: full name of the execution provider.
        batches: inputs of each run.
        outputs: names of the outputs wanted.
        known: what the original did there with optimisations off, where that was seen before.
        patient: let onnxruntime optimise as long as it takes.
    """

    def run(which: int, optimize: bool, repeat: bool = False) -> Outcome:
        seconds = OPTIMISER_SECONDS if optimize and not patient else None
        return run_model(
            runtime,
            files[which],
            provider,
            batches,
            outputs,
            optimize=optimize,
            repeat=repeat,
            load_seconds=seconds,
        )

    found = Sweep({False: known or run(0, optimize=False, repeat=provider != CPU)})
    if found.original[False].status != "ok":
        return found
    found.folded[False] = run(1, optimize=False)
    found.original[True] = run(0, optimize=True)
    found.folded[True] = run(1, optimize=True)
    options = relaxed_options(provider)
    if options is not None:
        for name, file in zip(("original", "folded"), files, strict=True):
            found.relaxed[name] = run_model(
                runtime, file, provider, batches, outputs, optimize=True, options=options
            )
    return found
