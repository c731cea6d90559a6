"""Normalisations over too little: a single element, a single position."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from normfold.consistency.layers import batchnorm_nodes
from normfold.consistency.static.subject import Subject
from normfold.recognition.batchnorm import is_inference
from normfold.reporting.report import Finding


def single_elements(subject: Subject) -> Iterator[Finding]:
    """NF316: the statistics are taken over one element, so the output is the shift."""
    opset = subject.workspace.opset
    nodes = [node for node in batchnorm_nodes(subject.workspace) if not is_inference(node, opset)]
    others = subject.nodes("InstanceNormalization", "GroupNormalization", "LayerNormalization")
    for node in (*nodes, *others):
        if _elements(node, subject) == 1:
            site = node.outputs[0].name or ""
            shape = list(subject.dims(node.inputs[0]) or ())
            yield Finding(
                "NF316",
                "info",
                f"{site}: {node.op_type} of a value of shape {shape} takes its statistics over one element",
                site,
            )


def per_position(subject: Subject) -> Iterator[Finding]:
    """NF318."""
    if subject.workspace.opset >= 9:
        return
    for node in batchnorm_nodes(subject.workspace):
        if node.attributes.get_int("spatial", 1) == 0:
            site = node.outputs[0].name or ""
            shape = subject.dims(node.inputs[3]) if len(node.inputs) > 3 else None
            count = f", statistics of shape {list(shape)}" if shape else ""
            yield Finding(
                "NF318",
                "info",
                f"{site}: spatial is 0 (opset {subject.workspace.opset}){count}: mean and variance differ "
                "by position",
                site,
            )


def _elements(node: ir.Node, subject: Subject) -> int | None:
    """How many elements one statistic is taken over, ``None`` where that is not known."""
    dims = subject.dims(node.inputs[0])
    if dims is None or len(dims) < 2:
        return None
    if node.op_type == "LayerNormalization":
        return _product(dims[node.attributes.get_int("axis", -1) :])
    if node.op_type == "BatchNormalization":
        return _product((dims[0], *dims[2:]))
    if node.op_type == "InstanceNormalization":
        return _product(dims[2:])
    groups, channels = node.attributes.get_int("num_groups", 1), dims[1]
    per_group = channels // groups if isinstance(channels, int) and groups > 0 else None
    return _product((per_group, *dims[2:]))


def _product(dims: Sequence[int | str | None]) -> int | None:
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(sizes) if len(sizes) == len(dims) else None
