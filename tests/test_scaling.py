"""A fold takes time in proportion to the number of nodes, and memory in proportion to the largest tensor."""

from __future__ import annotations

import sys
import time
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


def timed(model: ir.Model) -> tuple[float, Folded]:
    """Processor time, in seconds: other processes of the machine do not count."""
    start = time.process_time()
    folded = fold_model(model)
    return time.process_time() - start, folded


def test_convolutions_and_normalisations() -> None:
    short = min(timed(conv_batchnorm_chain(400))[0] for _ in range(2))
    assert min(timed(conv_batchnorm_chain(1600))[0] for _ in range(2)) < 6 * short


@pytest.mark.slow
def test_sums_that_nothing_absorbs() -> None:
    """Behind each affine lies the whole rest of the network; a walk ends after a bounded number of nodes."""
    short = timed(residual_chain(100))[0]
    assert timed(residual_chain(300))[0] < 6 * short


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
    # Of the 200 MB that are allowed beside the largest tensor, interpreter and libraries take 75.
    assert 30 < usage.anonymous < 75 + 25 + large.largest_bytes(vocabulary) / MEGABYTE
    folded = ir.load(out)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph}
    bias = next(node for node in folded.graph if node.op_type == "Add").inputs[1]
    head = next(v for v in folded.graph.initializers.values() if v.shape == (large.WIDTH, vocabulary))
    assert np.any(bias.const_value.numpy())
    assert not np.any(head.const_value.numpy())
