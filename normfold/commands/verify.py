"""``normfold.verify``: do two models mean the same?"""

from __future__ import annotations

from typing import Unpack

from normfold.commands.arguments import VerifyArguments, refuse_unfit_sizes, verify_options
from normfold.commands.run import Run
from normfold.errors import Inconclusive, VerificationFailed
from normfold.loading import ModelLike
from normfold.progress import Progress
from normfold.reporting.report import Report

_EXIT_OF_VERDICT: dict[str | None, int] = {
    "pass": 0,
    "fail": VerificationFailed.exit_code,
    "inconclusive": Inconclusive.exit_code,
    None: 0,
}


def verify(
    a: ModelLike,
    b: ModelLike,
    *,
    freeze_initializers: bool = False,
    progress: Progress | None = None,
    **checks: Unpack[VerifyArguments],
) -> Report:
    """Compares two models.

    Args:
        a: the original: path, protobuf or onnx_ir model.
        b: what is to mean the same.
        freeze_initializers: initializers that are also graph inputs are constants.
        progress: is called with the name of each phase when it begins.
        **checks: how to prove; see ``VerifyArguments``.

    Returns:
        The report. ``report.exit`` is 0 if the models agree, 1 if they differ, 3 if that is undecided.

    Raises:
        InputError: a model or an option cannot be used.
        MissingDependency: an optional package is needed.
    """
    from normfold.verification import verify_models

    with Run("verify", progress) as run:
        proof = verify_options(checks, freeze_initializers)
        first, second = run.load(a), run.load(b)
        refuse_unfit_sizes(first.model, checks.get("dims", {}), checks.get("shapes", {}))
        with run.phase("verify"):
            run.report.verification = verify_models(first.origin, second.origin, proof)
        run.report.exit = _EXIT_OF_VERDICT[run.report.verification.verdict]
    return run.report
