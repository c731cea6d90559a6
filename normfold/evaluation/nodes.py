"""Evaluation of one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import NodeCall
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
    return evaluate_call(make_call(node, inputs, opsets, double=precision == "float64"))


def make_call(
    node: ir.Node,
    inputs: Sequence[Any],
    opsets: Mapping[str, int],
    *,
    double: bool,
    bindings: Mapping[str, ir.Attr] | None = None,
) -> NodeCall:
    """Resolve a node's opset version and attributes; ``bindings`` are the attributes of the calling
    function.
    """
    version = node.version if node.version is not None else opsets.get(node.domain)
    if version is None and not node.domain:
        version = opsets.get("ai.onnx")
    if version is None:
        if not node.domain:
            raise NotCovered(node.op_type, node.domain, "the model imports no opset for it")
        version = 1
    attributes: dict[str, ir.Attr] = {}
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            attributes[name] = attribute
        elif bindings and (bound := bindings.get(attribute.ref_attr_name or "")):
            attributes[name] = ir.Attr(name, bound.type, bound.value)
    inputs = [as_value(value) for value in inputs]
    if double:
        kept = native_slots(node.domain, node.op_type)
        inputs = [value if index in kept else promote(value) for index, value in enumerate(inputs)]
    return NodeCall(
        op_type=node.op_type,
        domain=node.domain,
        version=version,
        inputs=tuple(inputs),
        attributes=attributes,
        wanted=tuple(output.name != "" for output in node.outputs),
        double=double,
    )


def is_covered(domain: str, op_type: str, version: int) -> bool:
    """Whether some kernel computes this operator in this opset."""
    return (domain, op_type) in KERNELS or (not domain and COVERED.get(op_type, version + 1) <= version)


def evaluate_call(call: NodeCall) -> list[Any]:
    """Run the kernel of a resolved call and bring its results to the promised types."""
    kernel = KERNELS.get((call.domain, call.op_type), run_reference)
    if not is_covered(call.domain, call.op_type, call.version):
        raise call.refuse(f"opset {call.version} is not covered")
    try:
        with np.errstate(all="ignore"):
            results = list(kernel(call))
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
    if call.double:
        results = [promote(result) for result in results]
    results += [None] * (len(call.wanted) - len(results))
    return [result if wanted else None for result, wanted in zip(results, call.wanted, strict=False)]
