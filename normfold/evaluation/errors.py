"""What the evaluator raises."""

from __future__ import annotations

from normfold.errors import Inconclusive


class NotCovered(Inconclusive):
    """The evaluator does not compute this node, or not with these attributes.

    Attributes:
        op_type: operator type of the node.
        domain: its domain, ``""`` for ONNX's own.
        reason: one phrase.
    """

    def __init__(self, op_type: str, domain: str, reason: str) -> None:
        name = f"{domain}.{op_type}" if domain else op_type
        super().__init__(f"{name}: {reason}")
        self.op_type = op_type
        self.domain = domain
        self.reason = reason


class EvaluationFailed(NotCovered):
    """The node is covered, but cannot be computed on these operands (shapes that do not fit, bad indices)."""
