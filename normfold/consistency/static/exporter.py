"""What torch's exporter writes into ``metadata_props`` of a node, and what it tells of the module.

``pkg.torch.onnx.class_hierarchy`` names the torch operator that a node came from,
``pkg.torch.onnx.fx_node`` its call, and ``pkg.onnxscript.rewriter.rule_name`` the optimisation that made
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from normfold.consistency.static.subject import Subject
from normfold.reporting.report import Finding

_CLASSES, _CALL = "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.fx_node"
_RULE = "pkg.onnxscript.rewriter.rule_name"
_IN_TRAINING = "_native_batch_norm_legit_functional"
_EPSILON = re.compile(r"_native_batch_norm_legit\w*(?:\.\w+)?\]\(args = \(.*, ([^,()\s]+)\), kwargs")


def exported_from_train(subject: Subject) -> Iterator[Finding]:
    """NF303."""
    seen: set[str] = set()
    for node in subject.nodes():
        name = node.outputs[0].name or "" if node.outputs else ""
        metadata = node.metadata_props
        if _IN_TRAINING not in metadata.get(_CLASSES, "") + metadata.get(_CALL, ""):
            continue
        if all(subject.workspace.constants.is_constant(v) for v in node.outputs):
            continue
        # Every node that one BatchNorm was decomposed into carries the same call.
        call = metadata.get(_CALL) or metadata.get("namespace") or name
        if call in seen:
            continue
        seen.add(call)
        yield Finding(
            "NF303",
            "error",
            f"{name}: {node.op_type} came from {_IN_TRAINING}: the module was in train() while it was "
            "exported",
            name,
        )


def folded_by_exporter(subject: Subject) -> Iterator[Finding]:
    """NF319."""
    for node in fused_nodes(subject):
        name = node.outputs[0].name or ""
        rule = node.metadata_props[_RULE]
        yield Finding(
            "NF319",
            "info",
            f"{name}: the exporter folded a BatchNorm into this {node.op_type} ({rule}); its statistics "
            "are gone",
            name,
        )


def fused_nodes(subject: Subject) -> Iterator[ir.Node]:
    """Nodes that the exporter folded a BatchNorm into."""
    for node in subject.nodes():
        if "FuseBatchNorm" in node.metadata_props.get(_RULE, ""):
            yield node


def recorded_epsilon(node: ir.Node) -> float | None:
    """The epsilon of the BatchNorm that a node came from: the last argument of the recorded call, if any."""
    found = _EPSILON.search(node.metadata_props.get(_CALL, ""))
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None
