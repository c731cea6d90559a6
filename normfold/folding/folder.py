"""The fold of a model in memory: prepare, recognise, plan, rewrite. No files, no verification."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from normfold.affine import Array64
from normfold.collector import collector_paused
from normfold.folding.ledger import Ledger, rule_of
from normfold.folding.norm_step import NormStep, substitute_norms
from normfold.options import FoldOptions
from normfold.planning.branches import find_merge
from normfold.planning.cost import is_bias
from normfold.planning.crossing import SwitchedOff
from normfold.planning.dead_bias import find_dead_bias
from normfold.planning.norm_affine import find_norm_release
from normfold.planning.norm_forms import Form
from normfold.planning.operators import TABLE
from normfold.planning.plan import Plan
from normfold.planning.ranges import is_representable
from normfold.planning.routes import Planner, is_kept
from normfold.planning.targets import Judge, accept_every_form
from normfold.preparation.constant64 import FLOAT_TYPES
from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace
from normfold.recognition.chains import Chain, Unreadable, find_chains
from normfold.recognition.idioms import find_idioms
from normfold.recognition.normalisations import kept_site, kind_of
from normfold.recognition.virtual import SiteRecord, is_virtual, virtual
from normfold.refusal import Refused
from normfold.reporting.report import Site
from normfold.rewriting.apply import apply_plan, drop_bias, original_name, release_norm
from normfold.rewriting.branches import apply_merge
from normfold.rewriting.bypass import bypass_no_ops, bypass_round_trips
from normfold.rewriting.expressions import evaluate_expressions
from normfold.rewriting.initializers import list_as_inputs, settle_names, sweep, unused
from normfold.rewriting.lowering import lower, shortens
from normfold.rewriting.raising import raise_chain, remove_identity
from normfold.rewriting.sequences import split_without_sequences
from normfold.rewriting.untiling import untile_batchnorms

# Each pass removes at least one affine or is the last; this only bounds a defect.
_MOST_PASSES = 20
_MOST_PLANS = 50


@dataclass(frozen=True)
class Folded:
    """What a fold made of a model.

    Attributes:
        original: the model that was folded, with local functions inlined.
        model: the folded model.
        exact: initializers of ``model`` that were edited, in float64 before rounding, by name.
        sites: every normalisation and constant affine of ``original``, and what became of it.
        changed: whether ``model`` differs from ``original``.
        provenance: per removed site its name, rule and original statistics.
        forms: what each GroupNorm and InstanceNorm was given, by name of its value; ``None`` where it stays.
    """

    original: ir.Model
    model: ir.Model
    exact: Mapping[str, Callable[[], Array64]]
    sites: list[Site]
    changed: bool
    provenance: list[dict[str, Any]]
    forms: Mapping[str, Form | None]


@dataclass(frozen=True)
class Prepared:
    """A model that is about to be folded.

    Attributes:
        source: the model that was asked for.
        original: the same with local functions inlined.
        workspace: of a copy that the fold will change. It serves one fold.
    """

    source: ir.Model
    original: ir.Model
    workspace: Workspace


def prepare(model: ir.Model, *, freeze_initializers: bool = False) -> Prepared:
    """Inlines, copies, and learns what there is to know of shapes and constants; ``model`` is not changed."""
    with collector_paused():
        original = InlinePass()(model.clone()).model if model.functions else model
        return Prepared(model, original, Workspace(original.clone(), freeze_initializers=freeze_initializers))


def fold_model(
    model: ir.Model, options: FoldOptions | None = None, *, judge: Judge = accept_every_form
) -> Folded:
    """Fold every constant affine of ``model`` that can be folded exactly. The argument is not changed.

    Args:
        model: the model.
        options: what to do.
        judge: is asked about each form that a GroupNorm or InstanceNorm may be given.
    """
    options = options or FoldOptions()
    return fold_prepared(prepare(model, freeze_initializers=options.freeze_initializers), options, judge)


def fold_prepared(prepared: Prepared, options: FoldOptions, judge: Judge = accept_every_form) -> Folded:
    """As ``fold_model``, on a model that has been prepared with the same ``freeze_initializers``."""
    original = prepared.original
    with collector_paused():
        folder = _Folder(prepared.workspace, options, judge)
        folder.run()
        freeze = options.freeze_initializers
        opset = folder.norms.opset_within_reach(folder.model, freeze_initializers=freeze)
        if opset is not None:
            # Forms were refused for the sake of operators that are gone now.
            workspace = Workspace(original.clone(), freeze_initializers=freeze)
            again = _Folder(workspace, options, judge, opset)
            again.run()
            folder = folder if again.norms.is_kept_by_its_opset() else again
        sites = folder.ledger.sites()
    changed = any(site.action != "kept" for site in sites) or folder.frozen
    return Folded(
        original=original,
        model=folder.model if changed else original.clone(),
        exact=folder.exact(),
        sites=sites,
        changed=changed,
        provenance=folder.ledger.provenance(),
        forms=folder.norms.forms,
    )


class _Folder:
    def __init__(
        self, workspace: Workspace, options: FoldOptions, judge: Judge, opset_within_reach: int | None = None
    ) -> None:
        self._options = options
        self._keep = options.keep | options.spare
        self._judge = judge
        self._opset_within_reach = opset_within_reach
        self._spared = unused(workspace.model)
        self._workspace = workspace
        off = SwitchedOff()
        self._table = {op: off if rule_of(op) in options.skip else entry for op, entry in TABLE.items()}
        self.ledger = Ledger(self._workspace)
        self.frozen = False
        self.norms = NormStep()

    @property
    def model(self) -> ir.Model:
        return self._workspace.model

    def run(self) -> None:
        bypass_no_ops(self._workspace, self._keep)
        split_without_sequences(self._workspace, self._keep)
        # What overflows is refused with a reason; numpy's warning would only name a line of this package.
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            self.norms = substitute_norms(
                self._workspace, self._options, self.ledger, self._judge, self._opset_within_reach
            )
            waiting = self._plan(self._raise(self.norms))
            while self._options.fold_norm_affine and self._release_norms():
                # What it brought to an affine, or took from in front of one, may let that go too.
                waiting = self._plan(waiting)
        self._drop_dead_biases()
        self._lower()
        bypass_round_trips(self._workspace, self._keep)
        self._evaluate_expressions()
        self._finish()

    def _raise(self, norms: NormStep) -> list[ir.Node]:
        virtuals = []
        untiled = untile_batchnorms(self._workspace, lambda node: is_kept(node, self._keep))
        idioms = find_idioms(self._workspace)
        idioms.anchored |= norms.anchored
        self._workspace.fused = idioms.opaque
        self._workspace.sealed = norms.inner
        for value, operators in idioms.norms:
            self.ledger.settle(kept_site(value.name or "", "layernorm", operators))
        for graph in graphs_of(self._workspace.model):
            for found in list(find_chains(graph, self._workspace, idioms)):
                if isinstance(found, Unreadable):
                    self.ledger.kept(found.node, found.refusal)
                elif found.affine.is_identity and not found.y.is_graph_output():
                    self._drop_identity(found)
                elif found.y.uses() or found.y.is_graph_output():
                    virtuals.append(raise_chain(found, self._workspace, untiled))
                    self.ledger.open(virtual(virtuals[-1]).records)
            for node in graph:
                kind = kind_of(node.domain, node.op_type)
                if kind is not None and node not in norms.settled:
                    self.ledger.settle(kept_site(node.outputs[0].name or "", kind, (node.op_type,)))
        return virtuals

    def _drop_identity(self, chain: Chain) -> None:
        """An affine that does nothing, such as a mask of zeros, goes before it can bar the way of another."""
        if not self._keep.isdisjoint({node.outputs[0].name for node in chain.nodes}):
            return
        operators = tuple(node.op_type for node in chain.nodes)
        self.ledger.settle(Site(chain.y.name or "", "affine", "folded", rule="identity", nodes=operators))
        remove_identity(chain)

    def _plan(self, virtuals: list[ir.Node]) -> list[ir.Node]:
        """Returns those that stay."""
        stay = not self._options.fold_norm_affine
        options = self._options
        planner = Planner(self._workspace, self._table, options.keep, options.spare, anchored_stay=stay)
        waiting = virtuals
        for _ in range(_MOST_PASSES):
            waiting, moved = self._plan_once(planner, waiting)
            merged = self._merge_branches()
            waiting = [site for site in waiting if site.graph is not None]
            bypassed = bypass_round_trips(self._workspace, self._keep)
            if not moved and not merged and not bypassed:
                break
        return waiting

    def _plan_once(self, planner: Planner, waiting: list[ir.Node]) -> tuple[list[ir.Node], bool]:
        """Try every site once, and what that changes. Returns those that stay, and whether anything went."""
        refused: dict[ir.Node, None] = {}
        progress = False
        queue = deque(waiting)
        budget = _MOST_PLANS * (len(waiting) + 1)
        while queue:
            site = queue.popleft()
            if site.graph is None:
                continue
            if self._is_dissolved(site):
                self._lower_one(site)
                progress = True
                continue
            budget -= 1
            if budget < 0:
                refused[site] = None
                continue
            plan = self._try(planner, site)
            if plan is None:
                refused[site] = None
                continue
            progress = True
            self.ledger.planned(plan)
            queue.extend(apply_plan(plan, self._workspace))
        return list(refused), progress

    def _is_dissolved(self, site: ir.Node) -> bool:
        """Whether what it carried has met its inverse: it would only bar the way of the next."""
        content = virtual(site)
        return (
            content.touched
            and content.affine.is_identity
            and not site.outputs[0].is_graph_output()
            and not is_kept(site, self._keep)
        )

    def _merge_branches(self) -> bool:
        if "branches" in self._options.skip:
            return False
        progress = False
        for graph in graphs_of(self._workspace.model):
            for node in list(graph):
                merge = None if node.graph is None else find_merge(node, self._workspace)
                if merge is None or any(is_kept(n, self._keep) for n in merge.nodes):
                    continue
                progress = True
                name = original_name(merge.root.outputs[0])
                operators = tuple(n.op_type for n in merge.nodes if not is_virtual(n))
                conv, records = apply_merge(merge, self._workspace)
                self.ledger.branches_merged(name, operators, conv, records)
        return progress

    def _release_norms(self) -> bool:
        """Returns whether any gave its scale and shift away."""
        progress = False
        for graph in graphs_of(self._workspace.model):
            for node in graph:
                release = find_norm_release(node, self._workspace, self._table)
                kind = kind_of(node.domain, node.op_type)
                if release is None or kind is None:
                    continue
                absorbers = [*release.way.crossings, *release.way.composed]
                if any(is_kept(n, self._keep) for n in (node, *absorbers)):
                    continue
                progress = True
                name = original_name(node.outputs[0])
                release_norm(release, self._workspace)
                self.ledger.open(
                    [SiteRecord(name, kind, (node.op_type,), "folded", "norm-affine", into=absorbers)]
                )
        return progress

    def _drop_dead_biases(self) -> None:
        for graph in graphs_of(self._workspace.model):
            for node in graph:
                way = find_dead_bias(node, self._workspace, self._table)
                if way is None or any(is_kept(n, self._keep) for n in (node, *way.crossings)):
                    continue
                name = original_name(node.outputs[0])
                drop_bias(node, way, self._workspace)
                self.ledger.settle(Site(name, "bias", "folded", rule="dead-shift", nodes=(node.op_type,)))

    def _try(self, planner: Planner, site: ir.Node) -> Plan | None:
        content = virtual(site)
        if is_kept(site, self._options.keep):
            refusal = Refused("NF120", "it was asked to stay")
        elif is_kept(site, self._options.spare):
            refusal = Refused("NF129", "its fold rounds more than the proof accepts")
        else:
            try:
                if content.affine.is_identity:
                    raise Refused("NF105", f"{site.outputs[0].name!r} is a graph output")
                return planner.plan(site)
            except Refused as caught:
                refusal = caught.again()
        self.ledger.refused(site, refusal)
        return None

    def _lower(self) -> None:
        for graph in graphs_of(self._workspace.model):
            for node in list(graph):
                if is_virtual(node):
                    self._lower_one(node)

    def _lower_one(self, node: ir.Node) -> None:
        content = virtual(node)
        x = node.inputs[0]
        assert x is not None
        bias = is_bias(content.affine, x, self._workspace)
        kept = [record for record in content.records if record.action == "kept"]
        dtype = self._workspace.shapes.dtype(node.outputs[0])
        merges = (
            not content.touched
            and shortens(node, self._workspace)
            and (dtype is None or is_representable(content.affine, dtype))
            and not is_kept(node, self._keep)
        )
        content.touched = content.touched or merges
        made = lower(node, self._workspace)
        for record in kept:
            record.silent = content.anchored or (bias and len(record.operators) == 1)
            if merges or len(made) < len(record.operators):
                record.action, record.rule, record.into = "merged", "compose", made

    def _evaluate_expressions(self) -> None:
        for name, operators in evaluate_expressions(self._workspace):
            self.ledger.settle(Site(name, "constant", "folded", rule="constant-expression", nodes=operators))

    def _finish(self) -> None:
        model, workspace = self._workspace.model, self._workspace
        sweep(model, self._spared, workspace.overridable)
        if self._options.freeze_initializers:
            self.frozen = _freeze(model)
        settle_names(model)
        list_as_inputs(model, workspace)

    def exact(self) -> dict[str, Callable[[], Array64]]:
        return {
            v.name: constant.compute
            for v, constant in self._workspace.constants.exact.items()
            if v.is_initializer() and v.name is not None and constant.dtype in FLOAT_TYPES
        }


def _freeze(model: ir.Model) -> bool:
    if model.ir_version is not None and model.ir_version < 4:
        # There every initializer has to be an input, and none can be replaced.
        return False
    inputs = model.graph.inputs
    frozen = [v for v in inputs if v.is_initializer()]
    for value in frozen:
        inputs.remove(value)
    return bool(frozen)
