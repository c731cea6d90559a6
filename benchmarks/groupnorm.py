"""Forms of GroupNorm on onnxruntime's CPU provider: time and error.

``python -m benchmarks groupnorm`` prints a table: time of one GroupNorm(32) with affine on (1, 320, 64, 64),
one thread, processor time, and the largest error against float64 by the ratio of mean and deviation of the
input.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import get_args

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from models.single_norms import GROUPNORM_EPSILON, Kind, groupnorm
from normfold.folding import fold_model
from normfold.options import FoldOptions
from normfold.planning.norm_forms import FORMS

SHAPE = (1, 320, 64, 64)
GROUPS = 32
RATIOS = (0.0, 10.0, 100.0)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def expected(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """GroupNorm of the model's parameters in float64."""
    parameters = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    gamma = parameters.get("gamma", parameters.get("g"))
    beta = parameters.get("beta", parameters.get("b"))
    assert gamma is not None and beta is not None
    rows = x.astype(np.float64).reshape(x.shape[0], GROUPS, -1)
    centred = rows - rows.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    normal = centred / np.sqrt(variance + float(np.float32(GROUPNORM_EPSILON)))
    return np.asarray(normal.reshape(x.shape) * gamma.reshape(-1, 1, 1) + beta.reshape(-1, 1, 1))


def errors(model: onnx.ModelProto, original: onnx.ModelProto) -> list[float]:
    """Largest error for each of RATIOS."""
    rng, run = np.random.default_rng(1), session(model)
    found = []
    for ratio in RATIOS:
        x = (rng.standard_normal(SHAPE) + ratio).astype(np.float32)
        found.append(float(np.abs(run.run(None, {"x": x})[0] - expected(original, x)).max()))
    return found


def times(models: dict[str, onnx.ModelProto], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns."""
    x = np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)
    sessions = {name: session(model) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 2):
        for name in sorted(sessions, reverse=bool(turn % 2)):
            began = time.process_time()
            sessions[name].run(None, {"x": x})
            if turn >= 2:
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks groupnorm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args(arguments).rounds
    originals = {kind: groupnorm(kind, SHAPE, GROUPS) for kind in get_args(Kind)}
    models = dict(originals)
    origin = dict(originals)
    for form in FORMS:
        folded = fold_model(ir.from_proto(originals["native"]), FoldOptions(groupnorm=form))
        # onnxruntime's CPU provider has no kernel of com.microsoft.GroupNorm.
        if folded.changed and form != "ms-groupnorm":
            models[f"--groupnorm {form}"] = ir.to_proto(folded.model)
            origin[f"--groupnorm {form}"] = originals["native"]
    for kind, model in originals.items():
        folded = fold_model(ir.from_proto(model), FoldOptions(target="ort-cpu"))
        models[f"{kind}, folded"] = ir.to_proto(folded.model)
        origin[f"{kind}, folded"] = model
    measured = times(models, rounds)
    base = measured["exported"]
    header = "".join(f" error at mean/σ = {ratio:g} |" for ratio in RATIOS)
    print(f"| model | ms | time / exported |{header}")
    print("|---|---|---|" + "---|" * len(RATIOS))
    for name, model in models.items():
        cells = " | ".join(f"{error:.1e}" for error in errors(model, origin[name]))
        print(f"| {name} | {measured[name] * 1e3:.2f} | {measured[name] / base:.2f} | {cells} |")
    return 0
