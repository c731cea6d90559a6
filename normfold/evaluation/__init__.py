"""Float64 evaluation of ONNX nodes and models: what constant folding and the proof stand on."""

from __future__ import annotations

from normfold.evaluation.deadline import DeadlineExceeded, deadline
from normfold.evaluation.errors import EvaluationFailed, NotCovered
from normfold.evaluation.evaluator import Evaluator
from normfold.evaluation.frame import Alterations
from normfold.evaluation.nodes import evaluate_node

__all__ = [
    "Alterations",
    "DeadlineExceeded",
    "EvaluationFailed",
    "Evaluator",
    "NotCovered",
    "deadline",
    "evaluate_node",
]
