"""A fold takes time in proportion to the number of nodes, and memory in proportion to the largest tensor."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import large
from benchmarks.chains import conv_batchnorm_chain, residual_chain
from benchmarks.processes import MEGABYTE, measured
from normfold.collector import collector_paused
from normfold.consistency.static import static_findings
from normfold.folding import Folded, fold_model
from normfold.loading import model_sha256


def timed(model: ir.Model) -> tuple[float, Folded]:
    """Processor time, in seconds: other processes of the machine do not count."""
    start = time.process_time()
    folded = fold_model(model)
    return time.process_time() - start, folded


def growth(chain: Callable[[int], ir.Model], short: int, long: int) -> float:
    """How many times longer the long chain takes; the least of three rounds, since each may be disturbed."""
    rounds = [(timed(chain(short))[0], timed(chain(long))[0]) for _ in range(3)]
    return min(after / before for before, after in rounds)


def test_convolutions_and_normalisations() -> None:
    assert growth(conv_batchnorm_chain, 400, 1600) < 6


@pytest.mark.slow
def test_sums_that_nothing_absorbs() -> None:
    """Behind each affine lies the whole rest of the network; a walk ends after a bounded number of nodes."""
    assert growth(residual_chain, 100, 300) < 6


@pytest.mark.slow
def test_ten_thousand() -> None:
    short = timed(conv_batchnorm_chain(2500))[0]
    seconds, folded = timed(conv_batchnorm_chain(10_000))
    assert {node.op_type for node in folded.model.graph} == {"Conv"}
    assert seconds < 6 * short
    assert seconds < 60


def test_findings_of_many_layers() -> None:
    """Each layer is found among the others without a search through all of them."""

    def seconds(layers: int) -> float:
        model = conv_batchnorm_chain(layers)
        start = time.process_time()
        # As in every command: each collection would go through all nodes again.
        with collector_paused():
            static_findings(model)
        return time.process_time() - start

    assert seconds(3200) < 8 * min(seconds(800) for _ in range(2))


CHANNELS = 128


def edited_weights(blocks: int, order: tuple[str, ...], kernel: int = 3) -> ir.Model:
    """``blocks`` times the operators in ``order``; all weights are one array, which takes no memory.

    ``kernel``: 3, or 1 with weights so small that one alone would not matter.
    """
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((CHANNELS, CHANNELS, kernel, kernel)).astype(np.float32)
    statistics = rng.uniform(0.5, 1.5, (4, CHANNELS)).astype(np.float32)
    x = ir.Value(name="x", shape=ir.Shape(["N", CHANNELS, "H", "W"]), type=ir.TensorType(ir.DataType.FLOAT))
    value, nodes, constants = x, [], []

    def constant(array: np.ndarray) -> ir.Value:
        name = f"c{len(constants)}"
        tensor = ir.Tensor(array, name=name)
        constants.append(
            ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
        return constants[-1]

    for _ in range(blocks):
        for op_type in order:
            operands: list[ir.Value] = []
            attributes = {}
            if op_type == "Conv":
                operands, attributes = [constant(weight)], {"pads": [kernel // 2] * 4}
            elif op_type == "BatchNormalization":
                operands = [constant(row) for row in statistics]
            nodes.append(ir.node(op_type, [value, *operands], attributes))
            value = nodes[-1].outputs[0]
            value.name = f"v{len(nodes)}"
    value.shape, value.type = x.shape, x.type
    graph = ir.Graph([x], [value], nodes=nodes, initializers=constants, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def peak(model: ir.Model) -> int:
    """The most bytes that a fold of ``model`` holds at once, its result written included."""
    tracemalloc.start()
    try:
        model_sha256(fold_model(model).model)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("order", "kernel", "left"),
    [
        (("Conv", "BatchNormalization", "Relu"), 3, {"Conv", "Relu"}),
        (("Conv", "BatchNormalization"), 3, {"Conv"}),
        (("Conv", "BatchNormalization", "Relu"), 1, {"Conv", "Relu"}),
        (("Relu", "BatchNormalization", "Conv"), 1, {"Relu", "Conv"}),
        (("Relu", "BatchNormalization", "Conv"), 3, {"Relu", "BatchNormalization", "Conv"}),
    ],
    ids=["backward", "no-activation", "small", "forward", "refused"],
)
def test_memory_of_many_weights(order: tuple[str, ...], kernel: int, left: set[str]) -> None:
    """No weight stays in float64 when the next one is edited, nor what was computed for an edit.

    A weight takes 1.2 or 0.13 MB in float64, and so does what a Conv makes of a shift in front of it. The
    nodes of a block, with all that is noted about them, take 0.03 to 0.04 MB.
    """
    folded = fold_model(edited_weights(2, order, kernel)).model
    assert {node.op_type for node in folded.graph} == left
    few, many = 5, 25
    grown = peak(edited_weights(many, order, kernel)) - peak(edited_weights(few, order, kernel))
    assert grown < (many - few) * 0.055 * MEGABYTE


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_of_a_large_model(tmp_path: Path) -> None:
    """Weights that no fold touches pass from file to file, and an edited one is computed in blocks.

    Held in memory as a whole, the largest tensor (82 MB, edited) alone would take 164 MB in float64, twice
    while it is scaled.
    """
    vocabulary = 5000
    source, out = large.write(tmp_path, 0.3, vocabulary), tmp_path / "out.onnx"
    command = [sys.executable, "-m", "normfold", "fold", "--no-verify", "-q", str(source), "-o", str(out)]
    usage = measured(command)
    assert usage.code == 0
    # Of the 200 MB that are allowed beside the largest tensor, interpreter and libraries take 33.
    assert 30 < usage.anonymous < 75
    assert usage.anonymous < large.largest_bytes(vocabulary) / MEGABYTE
    folded = ir.load(out)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph}
    bias = next(node for node in folded.graph if node.op_type == "Add").inputs[1]
    head = next(v for v in folded.graph.initializers.values() if v.shape == (large.WIDTH, vocabulary))
    assert np.any(bias.const_value.numpy())
    assert not np.any(head.const_value.numpy())
