"""LayerNorm over channels and RMSNorm on onnxruntime's CPU provider: hand-written against one operator.

``python -m benchmarks.channel_norms`` prints a table; one thread, processor time, the spellings taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime as ort

IMAGES = ((1, 96, 56, 56), (1, 384, 14, 14), (1, 768, 7, 7))
TOKENS = ((1, 197, 768), (8, 512, 1024))
EPSILON = 1e-6


def model(
    nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], tensors: dict[str, np.ndarray]
) -> onnx.ModelProto:
    value = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    read = {name for node in nodes for name in node.input}
    initializers = [onnx.numpy_helper.from_array(a, n) for n, a in tensors.items() if n in read]
    graph = oh.make_graph(nodes, "g", value[:1], value[1:], initializers)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 23)], ir_version=10)


def layernorm_over_channels(shape: tuple[int, ...]) -> dict[str, onnx.ModelProto]:
    """As ConvNeXt writes it, and between two Transposes."""
    rng, channels = np.random.default_rng(0), shape[1]
    gamma, beta = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    tensors = {"gamma": gamma, "beta": beta, "g": gamma[:, None, None], "b": beta[:, None, None]}
    tensors |= {"axes": np.array([1]), "two": np.array(2, np.float32), "e": np.array(EPSILON, np.float32)}
    hand = [
        oh.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        oh.make_node("Sub", ["x", "mean"], ["c"]),
        oh.make_node("Pow", ["c", "two"], ["squares"]),
        oh.make_node("ReduceMean", ["squares", "axes"], ["variance"]),
        oh.make_node("Add", ["variance", "e"], ["radicand"]),
        oh.make_node("Sqrt", ["radicand"], ["deviation"]),
        oh.make_node("Div", ["c", "deviation"], ["n"]),
        oh.make_node("Mul", ["n", "g"], ["m"]),
        oh.make_node("Add", ["m", "b"], ["y"]),
    ]
    single = [
        oh.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        oh.make_node("LayerNormalization", ["t", "gamma", "beta"], ["n"], epsilon=EPSILON),
        oh.make_node("Transpose", ["n"], ["y"], perm=[0, 3, 1, 2]),
    ]
    return {"hand-written": model(hand, shape, tensors), "one operator": model(single, shape, tensors)}


def rmsnorm(shape: tuple[int, ...]) -> dict[str, onnx.ModelProto]:
    """As language models write it, and RMSNormalization of opset 23."""
    gamma = np.random.default_rng(0).standard_normal(shape[-1]).astype(np.float32)
    tensors = {"gamma": gamma, "axes": np.array([-1])}
    tensors |= {"two": np.array(2, np.float32), "e": np.array(EPSILON, np.float32)}
    hand = [
        oh.make_node("Pow", ["x", "two"], ["squares"]),
        oh.make_node("ReduceMean", ["squares", "axes"], ["mean"]),
        oh.make_node("Add", ["mean", "e"], ["radicand"]),
        oh.make_node("Sqrt", ["radicand"], ["root"]),
        oh.make_node("Div", ["x", "root"], ["n"]),
        oh.make_node("Mul", ["gamma", "n"], ["y"]),
    ]
    single = [oh.make_node("RMSNormalization", ["x", "gamma"], ["y"], epsilon=EPSILON)]
    return {"hand-written": model(hand, shape, tensors), "one operator": model(single, shape, tensors)}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    print("| normalisation | shape | hand-written, ms | one operator, ms | speed |")
    print("|---|---|---|---|---|")
    cases = [("LayerNorm over channels", s, layernorm_over_channels(s)) for s in IMAGES]
    cases += [("RMSNorm", s, rmsnorm(s)) for s in TOKENS]
    for name, shape, models in cases:
        times = milliseconds(models, shape, rounds)
        hand, single = times["hand-written"], times["one operator"]
        print(f"| {name} | {shape} | {hand:.2f} | {single:.2f} | {hand / single:.2f} |")


if __name__ == "__main__":
    main()
