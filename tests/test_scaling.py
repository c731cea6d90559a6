"""A fold takes time in proportion to the number of nodes."""

from __future__ import annotations

import time

import onnx_ir as ir
import pytest

from benchmarks.chains import conv_batchnorm_chain, residual_chain
from normfold.folding import Folded, fold_model


def timed(model: ir.Model) -> tuple[float, Folded]:
    """Processor time, in seconds: other processes of the machine do not count."""
    start = time.process_time()
    folded = fold_model(model)
    return time.process_time() - start, folded


def test_convolutions_and_normalisations() -> None:
    short = min(timed(conv_batchnorm_chain(400))[0] for _ in range(2))
    assert timed(conv_batchnorm_chain(1600))[0] < 6 * short


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
