"""Whether one spelling of a computation rounds more than another on given inputs."""

from __future__ import annotations

import onnx_ir as ir

from normfold.inputs.drawing import Arrays
from normfold.reporting.report import Verification
from normfold.runtime.client import Runtime, write_model
from normfold.verification.endtoend.headtohead import HeadToHead
from normfold.verification.ledger import Ledger
from normfold.verification.options import VerifyOptions


def excess_rounding(
    original: ir.Model,
    candidate: ir.Model,
    batch: Arrays,
    options: VerifyOptions,
    runtime: Runtime | None,
) -> str | None:
    """Why ``candidate`` may not take the place of ``original``, by the rounding bound of a fold.

    Args:
        original: what the model has; its own error sets the bound.
        candidate: the same computation in another form.
        batch: inputs of both.
        options: providers and budget.
        runtime: ``None`` without onnxruntime; both models run in the evaluator then.

    Returns:
        One clause, ``None`` where the bound holds. An original that rounds too much to judge by sets one too.
    """
    ledger, report = Ledger(), Verification()
    files = None
    if runtime is not None:
        folder = runtime.folder
        files = write_model(original, folder, "stays"), write_model(candidate, folder, "candidate")
    HeadToHead(original, candidate, files, [batch], options, runtime, ledger, report).run()
    for entry in report.rounding:
        error, bound = entry["e1"], entry["bound"]
        if entry["status"] in ("fail", "uncertain") and not (error is not None and error <= (bound or 0.0)):
            if error is None:
                return "it gives NaN or Inf"
            return f"error {error:.1e} where {bound:.1e} is allowed"
    return next((message for message in ledger.messages if ledger.has("fail")), None)
