"""``normfold.FoldPass``: the fold as an onnx_ir pass."""

from __future__ import annotations

from typing import Unpack

import onnx_ir as ir

from normfold.commands.arguments import VerifyArguments
from normfold.commands.fold import fold
from normfold.options import FoldOptions
from normfold.reporting.report import Report


class FoldPass(ir.passes.FunctionalPass):
    """The fold as an onnx_ir pass: gives a new model and leaves its argument as it is.

    Attributes:
        report: of the last call.
    """

    def __init__(
        self,
        options: FoldOptions | None = None,
        *,
        verify: bool = True,
        **checks: Unpack[VerifyArguments],
    ) -> None:
        """Makes the pass.

        Args:
            options: of the fold.
            verify: prove the result of each call.
            **checks: how to prove; see ``VerifyArguments``.
        """
        super().__init__()
        self._options = options if options is not None else FoldOptions()
        self._verify = verify
        self._checks = checks
        self.report: Report | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Folds ``model``.

        Raises:
            NormfoldError: as ``fold``.
        """
        chosen = self._options
        result = fold(
            model,
            skip=chosen.skip,
            keep=chosen.keep,
            freeze_initializers=chosen.freeze_initializers,
            fold_norm_affine=chosen.fold_norm_affine,
            target=chosen.target,
            groupnorm=chosen.groupnorm,
            allow_unstable=chosen.allow_unstable,
            provenance=chosen.provenance,
            verify=self._verify,
            **self._checks,
        )
        self.report = result.report
        return ir.passes.PassResult(result.model, result.changed)
