"""The step of a fold that gives normalisations the form that the target wants."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from normfold.ledger import Ledger
from normfold.options import FoldOptions
from normfold.planning.norm_forms import form_of
from normfold.planning.routes import is_kept
from normfold.planning.targets import choose
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm, find_norms
from normfold.reporting.report import Site
from normfold.rewriting.norm_forms import substitute


@dataclass
class NormStep:
    """What the step leaves for those that follow.

    Attributes:
        anchored: Mul and Add of the form that a runtime looks for; they stay Mul and Add.
        own: nodes that a substitution made, which are no sites of the original.
    """

    anchored: set[ir.Node] = field(default_factory=set)
    own: set[ir.Node] = field(default_factory=set)


def substitute_norms(workspace: Workspace, options: FoldOptions, ledger: Ledger) -> NormStep:
    """Substitute every norm that has a better form on ``options.target``; the others stay as they are."""
    step = NormStep()
    if options.groupnorm == "keep" or (options.target is None and options.groupnorm is None):
        return step
    for found in list(find_norms(workspace)):
        if not isinstance(found, Norm):
            name = found.node.outputs[0].name or ""
            ledger.settle(
                Site(
                    name,
                    "groupnorm",
                    "kept",
                    code=found.code,
                    reason=found.reason,
                    nodes=(found.node.op_type,),
                )
            )
            continue
        if any(is_kept(node, options.keep) for node in found.nodes):
            continue
        choice = choose(found, workspace, options.target, options.groupnorm)
        norm = found.before_activation or found
        name, operators = norm.y.name or "", norm.operators
        if choice.form is not None:
            made = substitute(found, choice.form, workspace)
            step.own.update(made.nodes)
            if choice.form == "instancenorm":
                step.anchored.update(made.affine)
            ledger.settle(
                Site(
                    name,
                    found.kind,
                    "substituted",
                    rule=choice.form,
                    into=(name,),
                    code="NF403" if choice.reason else None,
                    reason=choice.reason,
                    nodes=operators,
                )
            )
        elif choice.reason is not None and form_of(found) == "primitive":
            ledger.settle(Site(name, found.kind, "kept", code="NF403", reason=choice.reason, nodes=operators))
        elif options.groupnorm == "instancenorm" or options.target in _WANT_MUL_ADD:
            step.anchored.update(_tail(found))
    return step


_WANT_MUL_ADD = frozenset({"openvino", "tensorrt", "portable"})


def _tail(norm: Norm) -> set[ir.Node]:
    """Mul and Add at the end of a chain around an InstanceNormalization."""
    norm = norm.before_activation or norm
    if form_of(norm) != "instancenorm":
        return set()
    core = next(i for i, node in enumerate(norm.nodes) if node.op_type == "InstanceNormalization")
    return {node for node in norm.nodes[core:] if node.op_type in ("Mul", "Add")}
