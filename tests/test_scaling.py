"""A fold takes time in proportion to the number of nodes."""

from __future__ import annotations

import time
from collections.abc import Callable

import onnx_ir as ir
import pytest

from benchmarks.chains import conv_batchnorm_chain, residual_chain
from normfold.folding import Folded, fold_model


def timed(model: ir.Model) -> tuple[float, Folded]:
    """Processor time, in seconds: other processes of the machine do not count."""
    start = time.process_time()
    folded = fold_model(model)
    return time.process_time() - start, folded


def ratio(chain: Callable[[int], ir.Model], short: int, long: int) -> float:
    """How much longer the long one takes; the faster of two runs of the short one."""
    few = min(timed(chain(short))[0] for _ in range(2))
    return timed(chain(long))[0] / few


def test_convolutions_and_normalisations() -> None:
    assert ratio(conv_batchnorm_chain, 400, 1600) < 6


def test_diamonds_that_nothing_absorbs() -> None:
    """Behind each affine lies the whole rest of the network."""
    assert ratio(residual_chain, 300, 900) < 5


@pytest.mark.slow
def test_ten_thousand() -> None:
    short = timed(conv_batchnorm_chain(2500))[0]
    seconds, folded = timed(conv_batchnorm_chain(10_000))
    assert {node.op_type for node in folded.model.graph} == {"Conv"}
    assert seconds < 6 * short
    assert seconds < 60
