"""The step of a fold that gives normalisations the form that the target wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from normfold.ledger import Ledger
from normfold.options import FoldOptions
from normfold.planning.norm_forms import LATEST_NEEDED, Form, form_of, needed_opset
from normfold.planning.opset import obstacle_to_opset
from normfold.planning.routes import is_kept
from normfold.planning.targets import Ceiling, Choice, Judge, choose
from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import LookAlike, Norm, find_norms
from normfold.reporting.report import Site
from normfold.rewriting.layout import cancel_transposes
from normfold.rewriting.norm_forms import substitute
from normfold.rewriting.opset import raise_opset


@dataclass
class NormStep:
    """What the step leaves for those that follow.

    Attributes:
        anchored: Mul and Add of the form that a runtime looks for; they stay Mul and Add.
        settled: nodes that no later step reports: what substitutions made, and norms whose stay is explained.
        forms: what each norm was given, by name of its value; ``None`` where it stays as it is.
        moved: values that others took the place of.
    """

    anchored: set[ir.Node] = field(default_factory=set)
    settled: set[ir.Node] = field(default_factory=set)
    forms: dict[str, Form | None] = field(default_factory=dict)
    moved: dict[ir.Value, ir.Value] = field(default_factory=dict)


def substitute_norms(workspace: Workspace, options: FoldOptions, ledger: Ledger, judge: Judge) -> NormStep:
    """Substitute every norm that has a better form on ``options.target``; the others stay as they are.

    The opset is raised where a form needs that and nothing else in the model minds.
    """
    step = NormStep()
    if options.groupnorm == "keep" or (options.target is None and options.groupnorm is None):
        return step
    norms = []
    for found in find_norms(workspace):
        if isinstance(found, LookAlike):
            name = found.node.outputs[0].name or ""
            operators = (found.node.op_type,)
            ledger.settle(
                Site(name, "groupnorm", "kept", code=found.code, reason=found.reason, nodes=operators)
            )
            step.settled.add(found.node)
        elif not any(is_kept(node, options.keep) for node in found.nodes):
            norms.append(found)
    choices = _choices(norms, workspace, options, judge)
    opsets = [needed_opset(n, c.form, workspace) for n, c in zip(norms, choices, strict=True) if c.form]
    if max(opsets, default=0) > workspace.opset:
        raise_opset(workspace, max(opsets))
    for norm, choice in zip(norms, choices, strict=True):
        _substitute_one(norm, choice, workspace, options, ledger, step)
    made = [node for graph in graphs_of(workspace.model) for node in graph if node in step.settled]
    cancel_transposes(made, workspace)
    return step


def _choices(norms: Sequence[Norm], workspace: Workspace, options: FoldOptions, judge: Judge) -> list[Choice]:
    """A form for each norm, of which none needs a later opset than the model can have."""
    ceiling = Ceiling(LATEST_NEEDED, "")
    while True:
        choices = [choose(n, workspace, options.target, options.groupnorm, ceiling, judge) for n in norms]
        given = [(norm, choice.form) for norm, choice in zip(norms, choices, strict=True) if choice.form]
        needed = max((needed_opset(norm, form, workspace) for norm, form in given), default=0)
        if needed <= workspace.opset:
            return choices
        leaving = {node for norm, _ in given for node in norm.nodes}
        barred = obstacle_to_opset(workspace.model, needed, leaving)
        if barred is None:
            return choices
        reason = f"the model's opset {workspace.opset} cannot be raised: {barred}"
        ceiling = Ceiling(max(needed - 1, workspace.opset), reason)


def _substitute_one(
    found: Norm, choice: Choice, workspace: Workspace, options: FoldOptions, ledger: Ledger, step: NormStep
) -> None:
    norm = found.before_activation or found
    name, operators = norm.y.name or "", norm.operators
    step.forms[name] = choice.form
    if choice.form is None:
        if choice.reason is not None:
            told = Site(name, found.kind, "kept", code=choice.code, reason=choice.reason, nodes=operators)
            ledger.settle(told)
            step.settled.update(found.nodes)
        if options.groupnorm == "instancenorm" or options.target in _WANT_MUL_ADD:
            step.anchored.update(_tail(found))
        return
    y = found.y if choice.form == "ms-groupnorm" else norm.y
    site = Site(name, found.kind, "substituted", rule=choice.form, into=(y.name or "",), nodes=operators)
    ledger.settle(replace(site, code=choice.code, reason=choice.reason))
    made = substitute(_reading(found, step.moved.get(found.x, found.x)), choice.form, workspace)
    step.moved[y] = made.y
    step.settled.update(made.nodes)
    if choice.form == "instancenorm":
        step.anchored.update(made.affine)


def _reading(norm: Norm, x: ir.Value) -> Norm:
    """The same norm, of what now stands for its x."""
    inner = norm.before_activation
    return replace(norm, x=x, before_activation=None if inner is None else replace(inner, x=x))


_WANT_MUL_ADD = frozenset({"openvino", "tensorrt", "portable"})


def _tail(norm: Norm) -> set[ir.Node]:
    """Mul and Add at the end of a chain around an InstanceNormalization."""
    norm = norm.before_activation or norm
    if form_of(norm) != "instancenorm":
        return set()
    core = next(i for i, node in enumerate(norm.nodes) if node.op_type == "InstanceNormalization")
    return {node for node in norm.nodes[core:] if node.op_type in ("Mul", "Add")}
