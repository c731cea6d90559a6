"""Runs a model file on an execution provider of onnxruntime, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from normfold.inputs.drawing import Arrays
from normfold.runtime.client import Runtime, RuntimeCrashed, RuntimeRefused, Session
from normfold.runtime.execution_providers import CPU, CUDA
from normfold.verification.endtoend.reference import largest_change

Status = Literal["ok", "refused", "crashed", "not registered", "not assigned"]
REPEATS = 3
"""Runs of the original on providers whose results vary from run to run."""

_NO_KERNEL = {CPU: frozenset({("com.microsoft", "GroupNorm")})}


@dataclass
class Outcome:
    """One model on one provider at one optimisation level.

    Attributes:
        status: ``refused`` where onnxruntime gave a reason, ``not assigned`` where the provider got no node.
        detail: onnxruntime's reason.
        runs: outputs of each run.
        options: what the provider was set up with.
        spread: largest difference between repeated first runs, per output.
        assigned: number of nodes by provider.
        fallbacks: nodes that another provider took.
        version: version of onnxruntime.
    """

    status: Status
    detail: str = ""
    runs: list[Arrays] = field(default_factory=list)
    options: Mapping[str, str] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    assigned: dict[str, int] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)
    version: str = ""

    def as_dict(self, provider: str, model: str, optimize: bool) -> dict[str, Any]:
        """The entry of the report."""
        return {
            "provider": provider,
            "model": model,
            "optimizations": "on" if optimize else "off",
            "status": self.status,
            "detail": self.detail,
            "assigned": self.assigned,
            "fallbacks": self.fallbacks,
            "onnxruntime": self.version,
            **({"options": dict(self.options)} if self.options else {}),
            **({"spread": self.spread} if self.spread else {}),
        }


def without_kernel(model: ir.Model, provider: str) -> str | None:
    """An operator of the model that folds write for other providers, and that this one has no kernel of."""
    lacking = _NO_KERNEL.get(provider, frozenset())
    for graph in model.graphs():
        for node in graph:
            if (node.domain, node.op_type) in lacking:
                return f"{node.domain}.{node.op_type}"
    return None


def strict_options(provider: str) -> dict[str, str]:
    """Provider options under which float32 means float32."""
    return {"use_tf32": "0"} if provider == CUDA else {}


def relaxed_options(provider: str) -> dict[str, str] | None:
    """Provider options under which products of float32 numbers are rounded to TF32, as they are by default;
    ``None`` where the provider has no such thing."""
    return {"use_tf32": "1"} if provider == CUDA else None


def run_model(
    runtime: Runtime,
    model: Path,
    provider: str,
    batches: Sequence[Arrays],
    outputs: Sequence[str],
    *,
    optimize: bool,
    repeat: bool = False,
    options: Mapping[str, str] | None = None,
    load_seconds: float | None = None,
) -> Outcome:
    """Loads a model and runs it on all batches.

    Args:
        runtime: the child process.
        model: the model file.
        provider: full name of the execution provider.
        batches: inputs of each run.
        outputs: names of the outputs wanted.
        optimize: all graph optimisations, or none.
        repeat: run the first batch again, to see how far results vary from run to run.
        options: provider options, on top of the runtime's own; by default the strict ones.
        load_seconds: time limit of loading, where it is tighter than the runtime's own.

    Returns:
        The outcome; failures of the runtime are outcomes, not errors.
    """
    chosen = strict_options(provider) if options is None else options
    try:
        session = runtime.open(model, provider, optimize=optimize, options=chosen, seconds=load_seconds)
        outcome = opened(session, provider)
        if outcome.status != "ok":
            runtime.release(session)
            return outcome
        outcome.runs = [runtime.run(session, batch, outputs) for batch in batches]
        if repeat:
            again = [runtime.run(session, batches[0], outputs) for _ in range(REPEATS - 1)]
            outcome.spread = {name: _spread(name, [outcome.runs[0], *again]) for name in outputs}
        runtime.release(session)
    except RuntimeRefused as error:
        absent = "is not registered" in str(error)
        return Outcome("not registered" if absent else "refused", str(error))
    except RuntimeCrashed as error:
        return Outcome("crashed", str(error))
    return outcome


def opened(session: Session, provider: str) -> Outcome:
    """What is known of a model once it is loaded."""
    assigned = {name: len(nodes) for name, nodes in session.assigned.items()}
    outcome = Outcome("ok", assigned=assigned, options=session.options, version=session.version)
    if provider == CPU:
        return outcome
    outcome.fallbacks = [
        node for name, nodes in session.assigned.items() if name != provider for node in nodes
    ]
    if provider not in session.providers:
        outcome.status = "not assigned"
        why = f": {session.complaint}" if session.complaint else ""
        outcome.detail = f"onnxruntime fell back to {', '.join(session.providers)}{why}"
    elif not session.assigned:
        outcome.status = "not assigned"
        outcome.detail = f"onnxruntime {session.version} cannot say which nodes it was given"
    elif not assigned.get(provider):
        outcome.status, outcome.detail = "not assigned", "it was given no node of the graph"
    return outcome


def _spread(name: str, runs: Sequence[Arrays]) -> float:
    return max(largest_change(runs[0][name], run[name]) for run in runs[1:])
