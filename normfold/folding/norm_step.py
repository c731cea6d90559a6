"""The step of a fold that gives normalisations the form that the target wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from normfold.folding.ledger import Ledger
from normfold.options import FoldOptions
from normfold.planning.norm_forms import LATEST_NEEDED, Form, form_of, needed_opset
from normfold.planning.opset import bound_to_opset, obstacle_to_opset
from normfold.planning.routes import is_kept
from normfold.planning.targets import Choice, Judge, Opsets, choose
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
        anchored: Mul and Add of the form that a runtime looks for, and the axis, from the end, that they lie
            on; they stay Mul and Add.
        inner: values inside of norms, where nothing may be put: with it they would be something else.
        settled: nodes that no later step reports: what substitutions made, and norms whose stay is explained.
        forms: what each norm was given, by name of its value; ``None`` where it stays as it is.
        moved: values that others took the place of.
        refused: opsets that forms needed and that the model cannot have as it stands.
        bound: nodes that mean something else in the opset that the model was given, and are expected to go.
    """

    anchored: dict[ir.Node, int] = field(default_factory=dict)
    inner: set[ir.Value] = field(default_factory=set)
    settled: set[ir.Node] = field(default_factory=set)
    forms: dict[str, Form | None] = field(default_factory=dict)
    moved: dict[ir.Value, ir.Value] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    bound: list[ir.Node] = field(default_factory=list)

    def opset_within_reach(self, model: ir.Model, *, freeze_initializers: bool) -> int | None:
        """The latest opset that was refused, and that nothing in the folded ``model`` bars any more."""
        if not self.refused:
            return None
        workspace = Workspace(model, freeze_initializers=freeze_initializers)
        norms = find_norms(workspace)
        leaving = {node for norm in norms if not isinstance(norm, LookAlike) for node in norm.nodes}
        leaving |= _constants_of(leaving, workspace)
        for version in sorted(self.refused, reverse=True):
            if obstacle_to_opset(model, version, leaving) is None:
                return version
        return None

    def is_kept_by_its_opset(self) -> bool:
        """Whether a node that was expected to go is still there."""
        return any(node.graph is not None for node in self.bound)


def substitute_norms(
    workspace: Workspace, options: FoldOptions, ledger: Ledger, judge: Judge, within_reach: int | None = None
) -> NormStep:
    """Substitute every norm that has a better form on ``options.target``; the others stay as they are.

    The opset is raised where a form needs that and nothing else in the model minds.

    Args:
        workspace: the model.
        options: of the fold.
        ledger: takes what becomes of each norm.
        judge: is asked about each form.
        within_reach: an opset that what minds it does not bar, because the fold removes it.
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
    choices = _choices(norms, workspace, options, judge, step.refused, within_reach)
    _raise_opset(norms, choices, workspace, step)
    for norm, choice in zip(norms, choices, strict=True):
        _substitute_one(norm, choice, workspace, options, ledger, step)
    made = [node for graph in graphs_of(workspace.model) for node in graph if node in step.settled]
    cancel_transposes(made, workspace)
    return step


def _choices(
    norms: Sequence[Norm],
    workspace: Workspace,
    options: FoldOptions,
    judge: Judge,
    refused: set[int],
    within_reach: int | None,
) -> list[Choice]:
    """A form for each norm, of which none needs a later opset than the model can have."""
    opsets = Opsets(workspace.opset, LATEST_NEEDED)
    while True:
        choices = [choose(n, workspace, options.target, options.groupnorm, opsets, judge) for n in norms]
        given = [(norm, choice.form) for norm, choice in zip(norms, choices, strict=True) if choice.form]
        needed = max((needed_opset(norm, form, workspace) for norm, form in given), default=0)
        if needed <= workspace.opset:
            return choices
        leaving = _leaving(given, workspace)
        barred = None
        if within_reach is None or needed > within_reach:
            barred = obstacle_to_opset(workspace.model, needed, leaving)
        if barred is not None:
            refused.add(needed)
            most = max(needed - 1, workspace.opset)
            reason = f"the model's opset {workspace.opset} cannot be raised: {barred}"
            opsets = Opsets(min(opsets.least, most), most, reason)
        elif needed <= opsets.least:
            return choices
        else:
            # What one norm needs may change what is best for another.
            opsets = replace(opsets, least=needed)


def _leaving(given: Sequence[tuple[Norm, Form]], workspace: Workspace) -> set[ir.Node]:
    """The nodes of norms that go when these are given their forms, and of their constants: nothing that stays
    reads them."""
    replaced = [_replaced(norm, form) for norm, form in given]
    results = {norm.y for norm in replaced}
    leaving = {node for norm in replaced for node in norm.nodes}
    pending = list(leaving)
    while pending:
        node = pending.pop()
        inner = [value for value in node.outputs if value not in results]
        read = any(v.is_graph_output() or any(use.node not in leaving for use in v.uses()) for v in inner)
        if node in leaving and read:
            leaving.remove(node)
            pending.extend(m for v in node.inputs if v is not None and (m := v.producer()) in leaving)
    return leaving | _constants_of(leaving, workspace)


def _constants_of(nodes: set[ir.Node], workspace: Workspace) -> set[ir.Node]:
    """The nodes that make constants for these nodes alone."""
    found: set[ir.Node] = set()
    pending = [value for node in nodes for value in node.inputs]
    while pending:
        value = pending.pop()
        maker = value.producer() if value is not None and workspace.constants.is_constant(value) else None
        if maker is None or maker in found or any(v.is_graph_output() for v in maker.outputs):
            continue
        if all(use.node in nodes or use.node in found for v in maker.outputs for use in v.uses()):
            found.add(maker)
            pending.extend(maker.inputs)
    return found


def _replaced(norm: Norm, form: Form) -> Norm:
    """The part of a norm that a form takes the place of; only one of them computes the activation."""
    return norm if form == "ms-groupnorm" else norm.before_activation or norm


def _raise_opset(
    norms: Sequence[Norm], choices: Sequence[Choice], workspace: Workspace, step: NormStep
) -> None:
    """To what the chosen forms need. What means something else there keeps the opset that it came with."""
    given = [(norm, choice.form) for norm, choice in zip(norms, choices, strict=True) if choice.form]
    needed = max((needed_opset(norm, form, workspace) for norm, form in given), default=0)
    if needed <= workspace.opset:
        return
    step.bound = bound_to_opset(workspace.model, needed, _leaving(given, workspace))
    for node in step.bound:
        node.version = workspace.opset
    raise_opset(workspace, needed)


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
            step.anchored |= _tail(found, workspace)
        step.inner |= _inner(norm.nodes, norm.y)
        return
    y = _replaced(found, choice.form).y
    site = Site(name, found.kind, "substituted", rule=choice.form, into=(y.name or "",), nodes=operators)
    ledger.settle(replace(site, code=choice.code, reason=choice.reason))
    made = substitute(_reading(found, step.moved.get(found.x, found.x)), choice.form, workspace)
    step.moved[y] = made.y
    step.settled.update(made.nodes)
    step.inner |= _inner(made.nodes, made.y)
    if choice.form == "instancenorm":
        step.anchored |= dict.fromkeys(made.affine, 1 - len(workspace.dims(made.y) or ()))


def _reading(norm: Norm, x: ir.Value) -> Norm:
    """The same norm, of what now stands for its x."""
    inner = norm.before_activation
    return replace(norm, x=x, before_activation=None if inner is None else replace(inner, x=x))


_WANT_MUL_ADD = frozenset({"openvino", "tensorrt", "portable"})


def _tail(norm: Norm, workspace: Workspace) -> dict[ir.Node, int]:
    """Mul and Add at the end of a chain around an InstanceNormalization, and the axis of their constants."""
    norm = norm.before_activation or norm
    if form_of(norm) != "instancenorm":
        return {}
    core = next(i for i, node in enumerate(norm.nodes) if node.op_type == "InstanceNormalization")
    found = {}
    for node in norm.nodes[core:]:
        if node.op_type in ("Mul", "Add"):
            rank = len(workspace.dims(node.outputs[0]) or ())
            found[node] = next((axis for v in node.inputs if (axis := _axis_of(v, workspace))), 1 - rank)
    return found


def _axis_of(value: ir.Value | None, workspace: Workspace) -> int | None:
    """The only axis, from the end, that a constant has."""
    dims = workspace.dims(value) if value is not None and workspace.constants.is_constant(value) else None
    axes = [axis - len(dims) for axis, dim in enumerate(dims) if dim != 1] if dims else []
    return axes[0] if len(axes) == 1 else None


def _inner(nodes: Sequence[ir.Node], y: ir.Value) -> set[ir.Value]:
    return {value for node in nodes for value in node.outputs if value is not y}
