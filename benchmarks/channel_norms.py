"""LayerNorm over channels and RMSNorm on onnxruntime's CPU provider: hand-written against one operator.

``python -m benchmarks channel_norms`` prints a table; one thread, processor time, the spellings taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime as ort

from models.single_norms import layernorm_over_channels, rmsnorm

IMAGES = ((1, 96, 56, 56), (1, 384, 14, 14), (1, 768, 7, 7))
TOKENS = ((1, 197, 768), (8, 512, 1024))

Maker = Callable[[tuple[int, ...]], dict[str, onnx.ModelProto]]


def milliseconds(models: dict[str, onnx.ModelProto], shape: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Median processor time of each, taking turns."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for name, m in models.items()
    }
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 2):
        for name, session in sessions.items():
            began = time.process_time()
            for _ in range(4):
                session.run(None, {"x": x})
            if turn >= 2:
                taken[name].append((time.process_time() - began) / 4)
    return {name: 1e3 * statistics.median(values) for name, values in taken.items()}


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks channel_norms", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args(arguments).rounds
    print("| normalisation | shape | hand-written, ms | one operator, ms | speed |")
    print("|---|---|---|---|---|")
    shapes: list[tuple[str, Maker, tuple[int, ...]]] = [
        *(("LayerNorm over channels", layernorm_over_channels, shape) for shape in IMAGES),
        *(("RMSNorm", rmsnorm, shape) for shape in TOKENS),
    ]
    for name, make, shape in shapes:
        models = make(shape)
        times = milliseconds(models, shape, rounds)
        hand, single = times["hand-written"], times["one operator"]
        print(f"| {name} | {shape} | {hand:.2f} | {single:.2f} | {hand / single:.2f} |")
    return 0
