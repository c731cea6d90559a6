"""One operator, evaluated; shared by the tests of all kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.evaluation import evaluate_node


def _node(
    op_type: str, inputs: Sequence[Any], outputs: int, domain: str, attributes: dict[str, Any]
) -> ir.Node:
    values = [None if operand is None else ir.Value(name=f"x{i}") for i, operand in enumerate(inputs)]
    return ir.node(op_type, values, attributes, domain=domain, num_outputs=outputs)


@pytest.fixture
def evaluate() -> Callable[..., list[np.ndarray]]:
    """``evaluate("Conv", [x, w], version=22, outputs=1, domain="", precision="float64", **attributes)``."""

    def run(
        op_type: str,
        inputs: Sequence[Any],
        *,
        version: int = 22,
        outputs: int = 1,
        domain: str = "",
        precision: str = "float64",
        **attributes: Any,
    ) -> list[np.ndarray]:
        node = _node(op_type, inputs, outputs, domain, attributes)
        opsets = {"": version, domain: 1 if domain else version}
        return evaluate_node(node, inputs, opsets, precision=precision)

    return run


@pytest.fixture
def runtime() -> Callable[..., list[np.ndarray]]:
    """The same node in onnxruntime, optimisations off, in the operands' own types."""
    ort = pytest.importorskip("onnxruntime")

    def run(
        op_type: str,
        inputs: Sequence[Any],
        *,
        version: int = 22,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> list[np.ndarray]:
        helper = onnx.helper
        names = ["" if operand is None else f"x{i}" for i, operand in enumerate(inputs)]
        feeds = {name: operand for name, operand in zip(names, inputs, strict=True) if name}
        node = helper.make_node(
            op_type, names, [f"y{i}" for i in range(outputs)], domain=domain, **attributes
        )
        graph = helper.make_graph(
            [node],
            "g",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for name, v in feeds.items()
            ],
            [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)],
        )
        opsets = [helper.make_opsetid("", version)]
        if domain:
            opsets.append(helper.make_opsetid(domain, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)

    return run
