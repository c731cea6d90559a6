"""If, Loop, Scan and SequenceMap, on top of the evaluator's node loop.

https://onnx.ai/onnx/operators/onnx__Loop.html, https://onnx.ai/onnx/operators/onnx__Scan.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.evaluation.errors import EvaluationFailed, NotCovered

RunBody = Callable[[ir.Graph, Sequence[Any]], list[Any]]
"""Runs a body on values for its formal inputs and returns its outputs."""


def run_if(node: ir.Node, operands: Sequence[Any], run: RunBody) -> list[Any]:
    """If: the branch that the condition names; branches have no inputs of their own."""
    branch = "then_branch" if bool(np.asarray(operands[0]).reshape(())) else "else_branch"
    return run(_graph(node, branch), ())


def run_loop(node: ir.Node, operands: Sequence[Any], run: RunBody) -> list[Any]:
    """Loop: at most M iterations while the condition holds; outputs are carried values, then stacked
    scans.
    """
    body = _graph(node, "body")
    limit = None if operands[0] is None else int(np.asarray(operands[0]).reshape(()))
    going = len(operands) < 2 or operands[1] is None or bool(np.asarray(operands[1]).reshape(()))
    carried = list(operands[2:])
    stacks: list[list[Any]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    iteration = 0
    while going and (limit is None or iteration < limit):
        results = run(body, [np.asarray(iteration, np.int64), np.asarray(True), *carried])
        going = bool(np.asarray(results[0]).reshape(()))
        carried = results[1 : 1 + len(carried)]
        for stack, part in zip(stacks, results[1 + len(carried) :], strict=True):
            stack.append(part)
        iteration += 1
    outputs = body.outputs[1 + len(carried) :]
    scans = [np.stack(s) if s else _no_rows(node, v) for s, v in zip(stacks, outputs, strict=True)]
    return [*carried, *scans]


def run_scan(node: ir.Node, operands: Sequence[Any], run: RunBody, version: int) -> list[Any]:
    """Scan from opset 9: a body run over slices of its scan inputs, with carried state.

    Raises:
        NotCovered: for Scan 8, which has a batch axis.
    """
    if version < 9:
        raise NotCovered(node.op_type, node.domain, "Scan with a batch axis (opset 8)")
    body = _graph(node, "body")
    scanned = node.attributes["num_scan_inputs"].value
    states = list(operands[: len(operands) - scanned])
    sources = operands[len(operands) - scanned :]
    outputs = len(body.outputs) - len(states)
    axes_in = _integers(node, "scan_input_axes", scanned)
    backwards_in = _integers(node, "scan_input_directions", scanned)
    axes_out = _integers(node, "scan_output_axes", outputs)
    backwards_out = _integers(node, "scan_output_directions", outputs)
    rows = [np.moveaxis(source, axis, 0) for source, axis in zip(sources, axes_in, strict=True)]
    rows = [row[::-1] if flip else row for row, flip in zip(rows, backwards_in, strict=True)]
    if len({len(row) for row in rows}) != 1:
        raise EvaluationFailed(node.op_type, node.domain, "scan inputs of different lengths")
    stacks: list[list[Any]] = [[] for _ in range(outputs)]
    for parts in zip(*rows, strict=True):
        results = run(body, [*states, *(np.asarray(part) for part in parts)])
        states = results[: len(states)]
        for stack, part in zip(stacks, results[len(states) :], strict=True):
            stack.append(part)
    scans = []
    for stack, axis, flip, value in zip(
        stacks, axes_out, backwards_out, body.outputs[len(states) :], strict=True
    ):
        stacked = np.stack(stack[::-1] if flip else stack) if stack else _no_rows(node, value)
        scans.append(np.moveaxis(stacked, 0, axis))
    return [*states, *scans]


def run_sequence_map(node: ir.Node, operands: Sequence[Any], run: RunBody) -> list[Any]:
    """SequenceMap: the body on every element of the first sequence; other operands are zipped or repeated."""
    body = _graph(node, "body")
    count = len(operands[0])
    columns = [operand if isinstance(operand, list) else [operand] * count for operand in operands]
    results = [run(body, parts) for parts in zip(*columns, strict=True)]
    return [[result[index] for result in results] for index in range(len(body.outputs))]


def _graph(node: ir.Node, name: str) -> ir.Graph:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type != ir.AttributeType.GRAPH:
        raise NotCovered(node.op_type, node.domain, f"attribute {name} is missing")
    graph: ir.Graph = attribute.value
    return graph


def _integers(node: ir.Node, name: str, count: int) -> list[int]:
    return list(node.attributes[name].value) if name in node.attributes else [0] * count


def _no_rows(node: ir.Node, value: ir.Value) -> Any:
    """A scan output after no iteration: an empty tensor of the declared element type and shape."""
    shape, dtype = value.shape, value.dtype
    if shape is None or dtype is None or any(not isinstance(d, int) for d in shape):
        raise NotCovered(node.op_type, node.domain, "no iteration, and a scan output of unknown shape")
    return np.zeros((0, *(int(d) for d in shape if isinstance(d, int))), dtype=dtype.numpy())
