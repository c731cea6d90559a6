"""Forms of GroupNorm on onnxruntime's CPU provider: time and error.

``python -m benchmarks.groupnorm`` prints a table: time of one GroupNorm(32) with affine on (1, 320, 64, 64),
one thread, processor time, and the largest error against float64 by the ratio of mean and deviation of the
input.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import onnxruntime as ort

from normfold.folding import fold_model
from normfold.options import FoldOptions
from normfold.planning.norm_forms import FORMS

SHAPE = (1, 320, 64, 64)
GROUPS = 32
EPSILON = 1e-5
RATIOS = (0.0, 10.0, 100.0)


def source(kind: str, shape: tuple[int, ...] = SHAPE, groups: int = GROUPS) -> onnx.ModelProto:
    """One GroupNorm: ``native``, ``exported`` (as torch's exporter decomposes it) or ``handwritten``."""
    rng = np.random.default_rng(0)
    channels = shape[1]
    tensors = {
        "gamma": rng.standard_normal(channels).astype(np.float32),
        "beta": rng.standard_normal(channels).astype(np.float32),
        "g": rng.standard_normal((channels, 1, 1)).astype(np.float32),
        "b": rng.standard_normal((channels, 1, 1)).astype(np.float32),
        "ones": np.ones(groups, np.float32),
        "zeros": np.zeros(groups, np.float32),
        "rows": np.array([0, groups, -1]),
        "shape": np.array(shape),
        "axes": np.array([2]),
        "eps": np.array(EPSILON, np.float32),
    }
    if kind == "native":
        nodes = [
            oh.make_node(
                "GroupNormalization", ["x", "gamma", "beta"], ["y"], num_groups=groups, epsilon=EPSILON
            )
        ]
    elif kind == "exported":
        nodes = [
            oh.make_node("Reshape", ["x", "rows"], ["r"]),
            oh.make_node("InstanceNormalization", ["r", "ones", "zeros"], ["n"], epsilon=EPSILON),
            oh.make_node("Reshape", ["n", "shape"], ["u"]),
            oh.make_node("Mul", ["u", "g"], ["m"]),
            oh.make_node("Add", ["m", "b"], ["y"]),
        ]
    else:
        nodes = [
            oh.make_node("Reshape", ["x", "rows"], ["r"]),
            oh.make_node("ReduceMean", ["r", "axes"], ["mean"]),
            oh.make_node("Sub", ["r", "mean"], ["c"]),
            oh.make_node("Mul", ["c", "c"], ["sq"]),
            oh.make_node("ReduceMean", ["sq", "axes"], ["var"]),
            oh.make_node("Add", ["var", "eps"], ["ve"]),
            oh.make_node("Sqrt", ["ve"], ["sd"]),
            oh.make_node("Div", ["c", "sd"], ["n"]),
            oh.make_node("Reshape", ["n", "shape"], ["u"]),
            oh.make_node("Mul", ["u", "g"], ["m"]),
            oh.make_node("Add", ["m", "b"], ["y"]),
        ]
    read = {name for node in nodes for name in node.input}
    value = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    graph = oh.make_graph(
        nodes,
        kind,
        value[:1],
        value[1:],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items() if name in read],
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)


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
    normal = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + float(np.float32(EPSILON)))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    originals = {kind: source(kind) for kind in ("native", "exported", "handwritten")}
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


if __name__ == "__main__":
    main()
