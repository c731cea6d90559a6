"""Biases that the normalisation behind them takes out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from normfold.consistency.static.linear import linear_before
from normfold.consistency.static.subject import Subject, largest
from normfold.reporting.report import Finding


def redundant_biases(subject: Subject) -> Iterator[Finding]:
    """NF314, in front of BatchNorm and InstanceNorm: both subtract the mean of the channel."""
    training = [layer.node for layer in subject.layers if layer.training]
    nodes = [*(layer.node for layer in subject.evaluated), *training]
    for node in (*nodes, *subject.nodes("InstanceNormalization")):
        yield from _judge(node, subject)


def _judge(node: ir.Node, subject: Subject) -> Iterator[Finding]:
    linear = linear_before(node.inputs[0], subject)
    if linear is None or not np.any(linear.bias):
        return
    site = node.outputs[0].name or ""
    yield Finding(
        "NF314",
        "info",
        f"{site}: the bias of {linear.node.op_type} {linear.node.outputs[0].name} (largest "
        f"{largest(linear.bias):.3g}) "
        f"stands in front of a {node.op_type}, which subtracts the mean",
        site,
    )
