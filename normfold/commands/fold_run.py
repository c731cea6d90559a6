"""The run of a command that folds: in memory, with what is learned on the way, and its proof."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from normfold.commands.run import Run
from normfold.errors import Inconclusive, InputError, VerificationFailed
from normfold.loading import Source
from normfold.options import FoldOptions
from normfold.reporting.neighbourhoods import site_graphs
from normfold.reporting.provenance import KEY, provenance_entry
from normfold.reporting.report import Verification

if TYPE_CHECKING:
    from normfold.folding import Folded, Prepared
    from normfold.planning.norm_forms import Form
    from normfold.planning.targets import Judge
    from normfold.verification import VerifyOptions


class FoldRun(Run):
    """A run that folds a model.

    Attributes:
        prepared: of the model, where an earlier step has prepared it; the next fold takes it.
    """

    prepared: Prepared | None = None

    def fold(self, source: Source, options: FoldOptions, judge: Judge | None = None) -> Folded:
        """Folds in memory, and fills the report's sites and summary.

        Args:
            source: the model.
            options: what to do.
            judge: is asked about each form that a GroupNorm or InstanceNorm may be given.
        """
        from normfold.folding import fold_prepared, prepare
        from normfold.planning.targets import accept_every_form

        _refuse_unknown_names(source.model, options)
        prepared, self.prepared = self.prepared, None
        if prepared is None or prepared.source is not source.model:
            with self.building("prepare"):
                prepared = prepare(source.model, freeze_initializers=options.freeze_initializers)
        with self.building("fold"):
            folded = fold_prepared(prepared, options, judge or accept_every_form)
            self.report.sites = list(folded.sites)
            self.report.summary = _summary(folded) | {"target": options.target}
            self.report.graphs = site_graphs(folded.original, folded.model, folded.sites)
            if folded.changed and options.provenance:
                self._record_provenance(folded, options)
        return folded

    def _record_provenance(self, folded: Folded, options: FoldOptions) -> None:
        metadata = folded.model.metadata_props
        metadata[KEY] = provenance_entry(
            self.report.tool["version"],
            self.report.inputs[0].get("sha256"),
            options.sha256(),
            folded.provenance,
            metadata.get(KEY),
        )

    def prove(
        self,
        source: Source,
        result: os.PathLike[str] | ir.Model,
        folded: Folded,
        fold_options: FoldOptions,
        options: VerifyOptions | None,
    ) -> None:
        """Verifies a fold, and raises unless it passes.

        Args:
            source: the original.
            result: the folded model, as a file where there is one.
            folded: what the fold did.
            fold_options: the options it was done with; small regions are folded again with the same.
            options: ``None`` to skip the proof.

        Raises:
            VerificationFailed: the verdict is ``fail``.
            Inconclusive: the verdict is ``inconclusive``.
        """
        if options is None:
            self.report.verification = Verification(messages=["verification was skipped"])
            return
        if not folded.changed:
            self.report.verification = Verification(
                "pass", messages=["nothing was folded, so nothing had to be proven"]
            )
            return
        from normfold.verification import verify_fold

        with self.phase("verify"):
            verification = verify_fold(
                source.origin,
                result,
                folded.original,
                folded.model,
                folded.exact,
                folded.sites,
                lambda region: _refold(region, fold_options, folded.forms),
                options,
            )
        self.report.verification = verification
        reason = verification.messages[0] if verification.messages else None
        if verification.verdict == "fail":
            raise VerificationFailed(reason or "the folded model differs from the original")
        if verification.verdict != "pass":
            raise Inconclusive(reason or "it could not be shown that the folded model equals the original")


def _refold(
    model: ir.Model, options: FoldOptions, forms: Mapping[str, Form | None]
) -> tuple[ir.Model, Mapping[str, Callable[[], Any]]]:
    from normfold.folding import fold_model
    from normfold.planning.targets import as_decided

    folded = fold_model(model, options, judge=as_decided(forms))
    return folded.model, folded.exact


def _refuse_unknown_names(model: ir.Model, options: FoldOptions) -> None:
    from normfold.folding.ledger import rule_of
    from normfold.planning.operators import TABLE

    rules = {rule_of(operator) for operator in TABLE}
    for rule in sorted(options.skip - rules):
        raise InputError(f"no rule is named {rule!r}; there are {', '.join(sorted(rules))}", code="NF900")
    tops = (model.graph, *(function.graph for function in model.functions.values()))
    values = {value.name for top in tops for node in top.all_nodes() for value in node.outputs}
    for name in sorted(options.keep - values):
        raise InputError(f"no node of the model produces a value named {name!r}", code="NF900")


def _summary(folded: Folded) -> dict[str, Any]:
    from normfold.planning.opset import own_opset

    actions = Counter(site.action for site in folded.sites)
    return {
        "changed": folded.changed,
        "sites": len(folded.sites),
        **{action: actions.get(action, 0) for action in ("folded", "merged", "moved", "substituted", "kept")},
        "nodes": [_node_count(folded.original), _node_count(folded.model)],
        "opset": [own_opset(folded.original), own_opset(folded.model)],
    }


def _node_count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())
