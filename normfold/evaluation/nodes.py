"""Evaluation of one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, as_value, promote
from normfold.evaluation.errors import EvaluationFailed, NotCovered
from normfold.evaluation.kernels import KERNELS
from normfold.evaluation.promotion import native_slots
from normfold.evaluation.reference import COVERED, run_reference

Precision = Literal["float64", "native"]


def evaluate_node(
    node: ir.Node,
    inputs: Sequence[Array | None],
    opsets: Mapping[str, int],
    *,
    precision: Precision = "float64",
) -> list[Array | None]:
    """Evaluate one node without subgraphs on concrete operands.

    Args:
        node: the node. References to function attributes must have been resolved.
        inputs: one array per input, ``None`` for an omitted optional one.
        opsets: opset version by domain, used where the node carries none.
        precision: ``float64`` casts floating operands to float64 and gives float64 results; operands that
            decide
            shapes, and those whose schema has no double, are taken as they are. ``native`` keeps every type.

    Returns:
        One array per output, ``None`` for an output without a name.

    Raises:
        NotCovered: if the operator, its version or an attribute is not computed here; its subclass
            EvaluationFailed if the operands do not fit.
    """
    return resolve(node, opsets)([as_value(value) for value in inputs], double=precision == "float64")


@dataclass(frozen=True, slots=True)
class Operation:
    """A node with its opset version, attributes and kernel resolved; calling it computes the node.

    Attributes:
        op_type: operator type.
        domain: its domain, ``""`` for ONNX's own.
        version: the opset version in force.
        attributes: attributes by name, references to function attributes resolved.
        wanted: per output, whether the node names it.
        kept: input slots that are never promoted.
        kernel: what computes it.
    """

    op_type: str
    domain: str
    version: int
    attributes: Mapping[str, ir.Attr]
    wanted: tuple[bool, ...]
    kept: frozenset[int]
    kernel: Kernel

    def __call__(self, inputs: Sequence[Any], *, double: bool) -> list[Any]:
        """Runs the kernel and brings its results to the promised types.

        Args:
            inputs: one value per input, ``None`` for an omitted optional one.
            double: floating operands and results are float64.

        Raises:
            NotCovered: the kernel does not compute this case; its subclass EvaluationFailed if the operands
                do not fit.
        """
        if double:
            inputs = [value if slot in self.kept else promote(value) for slot, value in enumerate(inputs)]
        call = NodeCall(
            self.op_type, self.domain, self.version, tuple(inputs), self.attributes, self.wanted, double
        )
        try:
            with np.errstate(all="ignore"):
                results = list(self.kernel(call))
        except NotCovered:
            raise
        except (
            ValueError,
            IndexError,
            TypeError,
            KeyError,
            RuntimeError,
            ArithmeticError,
            AssertionError,
        ) as error:
            detail = str(error).strip().splitlines()
            raise EvaluationFailed(
                call.op_type, call.domain, detail[0] if detail else type(error).__name__
            ) from error
        if double:
            results = [promote(result) for result in results]
        results += [None] * (len(self.wanted) - len(results))
        return [result if wanted else None for result, wanted in zip(results, self.wanted, strict=False)]


def resolve(
    node: ir.Node, opsets: Mapping[str, int], bindings: Mapping[str, ir.Attr] | None = None
) -> Operation:
    """Resolves what a node computes.

    Args:
        node: the node.
        opsets: opset version by domain, used where the node carries none.
        bindings: attributes of the calling function.

    Raises:
        NotCovered: if the operator, or its version, is not computed here.
    """
    version = node.version if node.version is not None else opsets.get(node.domain)
    if version is None and not node.domain:
        version = opsets.get("ai.onnx")
    if version is None:
        if not node.domain:
            raise NotCovered(node.op_type, node.domain, "the model imports no opset for it")
        version = 1
    if not is_covered(node.domain, node.op_type, version):
        raise NotCovered(node.op_type, node.domain, f"opset {version} is not covered")
    attributes: dict[str, ir.Attr] = {}
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            attributes[name] = attribute
        elif bindings and (bound := bindings.get(attribute.ref_attr_name or "")):
            attributes[name] = ir.Attr(name, bound.type, bound.value)
    return Operation(
        op_type=node.op_type,
        domain=node.domain,
        version=version,
        attributes=attributes,
        wanted=tuple(output.name != "" for output in node.outputs),
        kept=native_slots(node.domain, node.op_type),
        kernel=KERNELS.get((node.domain, node.op_type), run_reference),
    )


def is_covered(domain: str, op_type: str, version: int) -> bool:
    """Whether some kernel computes this operator in this opset."""
    return (domain, op_type) in KERNELS or (not domain and COVERED.get(op_type, version + 1) <= version)
