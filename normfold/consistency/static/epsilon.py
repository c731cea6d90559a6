"""Epsilons that are large, differ, or were meant to be a momentum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from normfold.consistency.layers import batchnorm_nodes
from normfold.consistency.static.exporter import fused_nodes, recorded_epsilon
from normfold.consistency.static.subject import Subject, name_list
from normfold.recognition.batchnorm import epsilon_of
from normfold.reporting.report import Finding

# An attribute is a float32, so 0.01 in a file is a little less than 0.01.
_WARN, _ERROR = float(np.float32(1e-2)), float(np.float32(0.1))
_OTHERS = ("InstanceNormalization", "GroupNormalization", "LayerNormalization")
_CONSTRUCTORS = {"BatchNormalization": "BatchNorm", "InstanceNormalization": "InstanceNorm"}


def large_epsilons(subject: Subject) -> Iterator[Finding]:
    """NF307 and NF308, on nodes and on what the exporter recorded of a BatchNorm that it folded."""
    for node in (*batchnorm_nodes(subject.workspace), *subject.nodes(*_OTHERS)):
        yield from judge_epsilon(epsilon_of(node), node.outputs[0].name or "", _constructor(node, subject))
    for node in fused_nodes(subject):
        epsilon = recorded_epsilon(node)
        if epsilon is not None:
            channels = _channels(node.outputs[0], subject)
            layer = f"BatchNorm{_spatial(node.outputs[0], subject)}d({channels}"
            yield from judge_epsilon(float(np.float32(epsilon)), node.outputs[0].name or "", layer)


def judge_epsilon(epsilon: float, site: str, constructor: str | None) -> Iterator[Finding]:
    """The finding on one epsilon, if any.

    Args:
        epsilon: as a float32.
        site: name of the layer's output.
        constructor: the beginning of the torch call that makes such a layer, such as ``BatchNorm2d(64``;
            ``None`` where the layer's constructor takes no momentum.
    """
    if epsilon < _WARN:
        return
    shown = f"{np.float32(epsilon):.6g}"
    if epsilon < _ERROR or epsilon >= 1 or constructor is None:
        severity = "warn" if epsilon < _ERROR else "error"
        message = f"{site}: epsilon is {shown}, usual are 1e-5 and 1e-3"
        if constructor is not None and epsilon < 1:
            message += (
                f" (nn.{constructor}, {shown}) would set it: the second argument is epsilon, not momentum)"
            )
        yield Finding("NF307", "error" if severity == "error" else "warn", message, site)
        return
    yield Finding(
        "NF308",
        "error",
        f"{site}: epsilon is {shown}, which looks like a momentum: nn.{constructor}, {shown}) sets epsilon, "
        f"nn.{constructor}, momentum={shown}) was probably meant",
        site,
    )


def mixed_epsilons(subject: Subject) -> Iterator[Finding]:
    """NF309, over the layers that have statistics."""
    sites: dict[float, list[str]] = defaultdict(list)
    for layer in subject.layers:
        if layer.training or layer.node in subject.by_node:
            sites[layer.epsilon].append(layer.site)
    if len(sites) < 2:
        return
    groups = sorted(sites.items(), key=lambda item: (-len(item[1]), item[0]))
    parts = [
        f"{np.float32(epsilon):.6g} in {len(names)} ({name_list(names[:3])})" for epsilon, names in groups
    ]
    yield Finding("NF309", "info", f"layers have {len(groups)} different epsilons: {'; '.join(parts)}")


def _constructor(node: ir.Node, subject: Subject) -> str | None:
    name = _CONSTRUCTORS.get(node.op_type)
    if name is None:
        return None
    return f"{name}{_spatial(node.inputs[0], subject)}d({_channels(node.inputs[0], subject)}"


def _spatial(value: ir.Value | None, subject: Subject) -> int:
    """How many axes the torch class of a value of this rank is named after; 2 where the rank is not known."""
    dims = subject.dims(value)
    return 2 if dims is None else min(max(len(dims) - 2, 1), 3)


def _channels(value: ir.Value | None, subject: Subject) -> str:
    dims = subject.dims(value)
    return str(dims[1]) if dims is not None and len(dims) > 1 and isinstance(dims[1], int) else "C"
