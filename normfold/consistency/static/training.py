"""Training semantics in the graph: statistics of the batch, and Dropout that drops.

The rules of each opset: https://onnx.ai/onnx/operators/onnx__BatchNormalization.html and
https://onnx.ai/onnx/operators/onnx__Dropout.html
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from normfold.consistency.layers import batchnorm_nodes
from normfold.consistency.static.subject import Subject, is_op, maker
from normfold.recognition.batchnorm import is_inference
from normfold.reporting.report import Finding

_REDUCTIONS = ("ReduceMean", "ReduceSum", "GlobalAveragePool")
_LARGEST_SLICE = 64


def batch_statistics(subject: Subject) -> Iterator[Finding]:
    """NF301, on BatchNormalization of every opset."""
    opset = subject.workspace.opset
    for node in batchnorm_nodes(subject.workspace):
        if _normalises_each_sample(node, subject):
            continue
        if not is_inference(node, opset):
            yield _error(node, f"is in training mode ({_rule(node, opset)}): it normalises with the batch")
        elif any(_is_computed_from(v, node.inputs[0], subject) for v in node.inputs[3:5]):
            yield _error(
                node,
                "takes mean and variance from its own input (track_running_stats=False): it normalises "
                "with the batch",
            )


def active_dropout(subject: Subject) -> Iterator[Finding]:
    """NF302."""
    opset = subject.workspace.opset
    for node in subject.nodes("Dropout"):
        name = node.outputs[0].name or ""
        if opset < 7:
            ratio = float(node.attributes.get_float("ratio", 0.5))
            if node.attributes.get_int("is_test", 0) == 0 and ratio > 0:
                yield Finding(
                    "NF302",
                    "error",
                    f"{name}: Dropout is active (opset {opset}, is_test is 0), ratio {ratio:.6g}",
                    name,
                )
        elif opset >= 12 and len(node.inputs) > 2 and node.inputs[2] is not None:
            yield from _since_12(node, name, subject)


def _since_12(node: ir.Node, name: str, subject: Subject) -> Iterator[Finding]:
    given = node.inputs[1]
    ratio = subject.scalar(given) if given is not None else 0.5
    if ratio == 0:
        return
    shown = "unknown ratio" if ratio is None else f"ratio {ratio:.6g}"
    mode = node.inputs[2]
    array = subject.array(mode)
    if array is None and mode is not None and mode.const_value is not None:
        array = mode.const_value.numpy()
    if array is None:
        source = "a caller" if mode is not None and mode.is_graph_input() else "another node"
        yield Finding("NF302", "info", f"{name}: {source} decides whether Dropout is active, {shown}", name)
    elif array.any():
        yield Finding("NF302", "error", f"{name}: Dropout is active (training_mode is true), {shown}", name)


def _error(node: ir.Node, message: str) -> Finding:
    name = node.outputs[0].name or ""
    return Finding("NF301", "error", f"{name}: {node.op_type} {message}", name)


def _rule(node: ir.Node, opset: int) -> str:
    if opset >= 14:
        return f"opset {opset}, training_mode is 1"
    named = sum(1 for v in node.outputs if v.name)
    if opset >= 7 or (named > 1 and node.attributes.get_int("is_test", 0) == 1):
        return f"opset {opset}, it has {named} outputs"
    return f"opset {opset}, is_test is {'0' if 'is_test' in node.attributes else 'not set, and 0 by default'}"


def _normalises_each_sample(node: ir.Node, subject: Subject) -> bool:
    """``Reshape[1, N·C, …] → BatchNormalization``: InstanceNorm, spelled as a batch of one."""
    x = node.inputs[0]
    reshape = maker(x)
    if not is_op(reshape, "Reshape"):
        return False
    before, after = subject.dims(reshape.inputs[0]), subject.dims(x)
    target = subject.array(reshape.inputs[1]) if len(reshape.inputs) > 1 else None
    first = after[0] if after else (int(target[0]) if target is not None and target.size else None)
    return first == 1 and before is not None and len(before) > 0 and before[0] != 1


def _is_computed_from(value: ir.Value | None, x: ir.Value | None, subject: Subject) -> bool:
    """Whether ``value`` is computed from ``x`` through a reduction, a few nodes away."""
    if value is None or subject.workspace.constants.is_constant(value):
        return False
    stack: list[tuple[ir.Value, bool]] = [(value, False)]
    seen: set[ir.Value] = set()
    while stack and len(seen) < _LARGEST_SLICE:
        current, reduced = stack.pop()
        if current is x:
            return reduced
        node = current.producer()
        if node is None or current in seen:
            continue
        seen.add(current)
        stack.extend((v, reduced or node.op_type in _REDUCTIONS) for v in node.inputs if v is not None)
    return False
