"""``normfold.fold``: a file in, proof, a file out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Unpack

import onnx_ir as ir

from normfold import loading
from normfold.commands.arguments import (
    VerifyArguments,
    chosen_form,
    chosen_target,
    refuse_unfit_sizes,
    verify_options,
)
from normfold.commands.consistency import examine
from normfold.commands.fold_run import FoldRun
from normfold.commands.until_proven import Prove, fold_until_proven
from normfold.errors import ConsistencyFailed, InputError
from normfold.loading import ModelLike, SavedFiles, Source
from normfold.options import FoldOptions
from normfold.progress import Progress
from normfold.reporting.report import Finding, Report

if TYPE_CHECKING:
    import onnx

    from normfold.consistency.findings import FailOn
    from normfold.folding import Folded


@dataclass(frozen=True)
class FoldResult:
    """What a fold made.

    Attributes:
        model: the folded model; where nothing changed it is equivalent to the input.
        report: what was folded, what was kept and why, and the proof.
        changed: whether anything was folded.
    """

    model: ir.Model
    report: Report
    changed: bool
    _source: Source = field(repr=False)

    def proto(self) -> onnx.ModelProto:
        """Returns the folded model as a protobuf of its own, weights inside.

        Raises:
            OutputError: NF921 if it would be above the 2 GB limit of protobuf.
        """
        return loading.to_proto(self.model)

    def save(self, path: str | os.PathLike[str]) -> SavedFiles:
        """Writes the folded model atomically; a byte copy of the input file where nothing changed.

        Raises:
            OutputError: NF920 or NF921.
        """
        if self._source.is_file(path):
            self._source.map_weights()
        with self._source.stage(self.model, path, changed=self.changed) as staged:
            return staged.publish()


def fold(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    freeze_initializers: bool = False,
    fold_norm_affine: bool = False,
    target: str | None = None,
    groupnorm: str | None = None,
    tune: bool = False,
    allow_unstable: bool = False,
    provenance: bool = True,
    fail_on: FailOn | None = None,
    verify: bool = True,
    progress: Progress | None = None,
    **checks: Unpack[VerifyArguments],
) -> FoldResult:
    """Folds a model, proves the result and, if ``output`` is given, writes it.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        output: path of the result (``-`` for standard output); may be the input's. Written atomically, and
            only after the proof.
        skip: names of rules that are not to be applied.
        keep: names of values whose producers are to stay as they are.
        freeze_initializers: initializers that are also graph inputs are constants.
        fold_norm_affine: fold the affine of a normalisation into a following linear operator even where that
            removes no node.
        target: runtime that GroupNorm and InstanceNorm are spelled for: ``ort-cpu``, ``ort-cuda``,
            ``tensorrt``, ``openvino`` or ``portable``. Without it, that of the first of ``providers``, else
            ``ort-cpu``.
        groupnorm: the form to spell them in, whatever the target prefers, or ``keep``; see
            ``normfold.planning.norm_forms``. A form that is not possible gives way to the target's.
        tune: time every form on the model, on the first of ``providers`` and on its inputs, and take the
            fastest whose proof passes.
        allow_unstable: take forms that lose accuracy on inputs with a large mean; none is tried on such
            inputs first, and generated inputs of the proof have none.
        provenance: record in the result's metadata what was folded.
        fail_on: refuse to fold a model with consistency findings of this severity or worse. They are in the
            report in any case.
        verify: prove the result. Without it the report's verdict is ``None``.
        progress: is called with the name of each phase when it begins.
        **checks: how to prove; see ``VerifyArguments``.

    Returns:
        The folded model and the report.

    Raises:
        InputError: the model or an option cannot be used.
        OutputError: the result cannot be written.
        ConsistencyFailed: there are findings as severe as ``fail_on``; nothing was folded.
        VerificationFailed: the proof failed; nothing was written.
        Inconclusive: the proof could not decide; nothing was written.
        MissingDependency: an optional package is needed.

    All of them carry ``report``.
    """
    checks["providers"] = tuple(checks.get("providers", ()))
    if tune and groupnorm is not None:
        raise InputError("tuning chooses the form of GroupNorm; none can be asked for", code="NF900")
    with FoldRun("fold", progress) as run:
        options = FoldOptions(
            frozenset(skip),
            frozenset(keep),
            freeze_initializers,
            fold_norm_affine,
            provenance,
            chosen_target(target, tuple(checks["providers"])),
            chosen_form(groupnorm),
            allow_unstable,
        )
        proof = verify_options(checks, freeze_initializers) if verify else None
        source = run.load(model)
        refuse_unfit_sizes(source.model, checks.get("dims", {}), checks.get("shapes", {}))
        run.prepared = examine(run, source, freeze_initializers=freeze_initializers)
        if fail_on is not None:
            _refuse_findings(run.report.findings, fail_on)
        folded = fold_until_proven(
            run,
            source,
            options,
            proof,
            lambda folded, prove: _deliver(run, source, folded, output, prove),
            checks if tune else None,
        )
    return FoldResult(folded.model, run.report, folded.changed, source)


def _deliver(
    run: FoldRun,
    source: Source,
    folded: Folded,
    output: str | os.PathLike[str] | None,
    prove: Prove,
) -> None:
    """Proves a fold, and writes it where it is to be written."""
    if output is None:
        prove(folded.model)
        return
    if source.is_file(output):
        if not folded.changed:
            prove(folded.model)
            run.report.outputs.append(source.describe())
            return
        source.map_weights()
    with run.building("stage"):
        staged = source.stage(folded.model, output, changed=folded.changed)
    with staged:
        prove(staged.path)
        with run.phase("write"):
            run.report.outputs.append(staged.publish().describe())


def _refuse_findings(findings: Iterable[Finding], fail_on: FailOn) -> None:
    """Raises ConsistencyFailed where a finding is as severe as ``fail_on``."""
    from normfold.consistency.findings import at_least

    grave = at_least(findings, fail_on)
    if grave:
        more = f", and {len(grave) - 1} more" if len(grave) > 1 else ""
        raise ConsistencyFailed(f"{grave[0].code}: {grave[0].message}{more} (--fail-on {fail_on})")
