"""Add, Sub and Sum are one thing: ``Σ_k σ_k · X_k``."""

from __future__ import annotations

import onnx_ir as ir

SUMS = ("Add", "Sub", "Sum")


def is_sum(node: ir.Node) -> bool:
    """Whether a node adds up its operands, some with a sign."""
    return node.op_type in SUMS and node.domain in ("", "ai.onnx") and None not in node.inputs


def sign(node: ir.Node, slot: int) -> int:
    """σ of an operand: −1 for the second one of Sub, 1 otherwise."""
    return -1 if node.op_type == "Sub" and slot == 1 else 1
