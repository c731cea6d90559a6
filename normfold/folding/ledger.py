"""What has become of each site: the notes that a fold takes, and the report and provenance made of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.cost import Elements, is_bias, is_per_channel, passes
from normfold.planning.plan import Plan
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import SiteRecord, virtual
from normfold.refusal import Refused
from normfold.reporting.report import Action, Site


class Ledger:
    """The sites of one fold: those that travel (records, kept with their virtual nodes) and those that are
    settled at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._records: list[SiteRecord] = []
        self._settled: list[Site] = []

    def open(self, records: Sequence[SiteRecord]) -> None:
        """Sites whose fate is not decided yet."""
        self._records.extend(records)

    def settle(self, site: Site) -> None:
        """A site whose fate is decided."""
        self._settled.append(site)

    def kept(self, node: ir.Node, refusal: Refused) -> None:
        """A node that is no constant affine, and why."""
        kind = "batchnorm" if node.op_type == "BatchNormalization" else "affine"
        name = node.outputs[0].name or ""
        self.settle(Site(name, kind, "kept", code=refusal.code, reason=refusal.detail, nodes=(node.op_type,)))

    def refused(self, node: ir.Node, refusal: Refused) -> None:
        """What a virtual node carries stays, or what is left of it does."""
        for record in virtual(node).records:
            if record.action != "folded":
                record.code, record.reason = refusal.code, refusal.detail

    def planned(self, plan: Plan) -> None:
        """A plan is about to be applied to the sites that its virtual node carries."""
        absorbers = [n for walk in plan.walks for n, crossing in walk.crossings.items() if crossing.constants]
        takers = [n for walk in plan.walks for n in walk.composed]
        stays = [d for d in plan.deposits if not is_bias(d.affine, d.value, self._workspace)]
        for record in virtual(plan.site).records:
            record.into = [*absorbers, *takers]
            record.rule = "+".join(sorted({rule_of(n.op_type) for n in absorbers}) or [_rule_without(plan)])
            record.code = record.reason = None
            if stays or plan.route.rest is not None:
                record.action = "moved"
                record.elements = self._elements(plan)
            else:
                record.action = "merged" if takers and not absorbers else "folded"

    def branches_merged(
        self, name: str, operators: tuple[str, ...], conv: ir.Node, records: Sequence[SiteRecord]
    ) -> None:
        """A sum became one Conv, which took the affines of ``records``."""
        for record in records:
            record.action, record.rule, record.into = "folded", "branches", [conv]
            record.code = record.reason = None
        self.open([SiteRecord(name, "branches", operators, action="merged", rule="branches", into=[conv])])

    def sites(self) -> list[Site]:
        """Every site, once the fold is done."""
        substituted = {site.site for site in self._settled if site.action == "substituted"}
        told = [
            r
            for r in self._records
            if r.action == "folded" or not (r.name in substituted or (r.silent and r.action == "kept"))
        ]
        return [*self._settled, *(_site(record) for record in told)]

    def provenance(self) -> list[dict[str, Any]]:
        """Per removed site its name, rule and original statistics."""
        return [
            {
                "site": r.name,
                "rule": r.rule,
                **_of_several(r),
                **_encoded(r.statistics or {}),
                **_absorbers(r),
            }
            for r in self._records
            if r.action != "kept"
        ]

    def _elements(self, plan: Plan) -> tuple[int, int] | None:
        """Elements that the affine touches before and after, where all sizes are static."""
        content = virtual(plan.site)
        before, after = Elements(), Elements()
        y = plan.site.outputs[0]
        from_batchnorm = content.batchnorm is not None

        def add(cost: Elements, value: ir.Value, affine: Affine, *, own: bool) -> None:
            per_channel = is_per_channel(value, self._workspace, content)
            times = passes(affine, from_batchnorm=from_batchnorm and own, per_channel=per_channel)
            cost.add(self._workspace.dims(value), times)

        add(before, y, content.affine, own=True)
        for deposit in plan.deposits:
            add(after, deposit.value, deposit.affine, own=False)
        if plan.route.rest is not None:
            add(after, y, plan.route.rest, own=True)
        if before.number is None or after.number is None:
            return None
        return before.number, after.number


def _rule_without(plan: Plan) -> str:
    """The rule of a plan that edits no constant."""
    if any(walk.composed for walk in plan.walks):
        return "compose"
    return "move" if plan.deposits or plan.route.rest is not None else "dead-shift"


def rule_of(op_type: str) -> str:
    """The name of an operator's rule in reports and in ``--skip``: ``Conv`` is ``conv``."""
    return op_type.lower()


def _site(record: SiteRecord) -> Site:
    is_gone = record.action == "folded"
    return Site(
        record.name,
        record.kind,
        cast("Action", record.action),
        rule=record.rule,
        into=tuple(dict.fromkeys(n.outputs[0].name or "" for n in record.into if n.graph is not None)),
        code=None if is_gone else record.code,
        reason=None if is_gone else record.reason,
        nodes=record.operators,
        elements=record.elements,
    )


def _of_several(record: SiteRecord) -> dict[str, Any]:
    """The nodes behind a site with statistics, where they are more than the normalisation that these are
    of."""
    several = record.statistics is not None and len(record.operators) > 1
    return {"nodes": list(record.operators)} if several else {}


def _absorbers(record: SiteRecord) -> dict[str, Any]:
    """The nodes that took statistics in, by their outputs, for what looks at the layer again."""
    if record.statistics is None:
        return {}
    return {"into": sorted({n.outputs[0].name or "" for n in record.into if n.graph is not None})}


def _encoded(statistics: dict[str, object]) -> dict[str, Any]:
    """Arrays as base64 of little-endian float32: a model with a thousand layers stays readable."""
    return {
        name: base64.b64encode(v.astype("<f4").tobytes()).decode() if isinstance(v, np.ndarray) else v
        for name, v in statistics.items()
    }
