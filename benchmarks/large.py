"""Models of many gigabytes whose weights lie in one external data file, sparse on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
from onnx import TensorProto

CHANNELS = 512
WIDTH = 4096
VOCABULARY = 25_000
FLOAT_BYTES = 4


@dataclass
class _Builder:
    """Nodes and tensors; the large ones are nothing but a place in the data file."""

    data: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    size: int = 0

    def external(self, name: str, dims: tuple[int, ...]) -> str:
        length = int(np.prod(dims)) * FLOAT_BYTES
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", self.data), ("offset", self.size), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        self.size += length
        return name

    def inline(self, name: str, array: np.ndarray) -> str:
        self.tensors.append(onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        result = f"v{len(self.nodes)}"
        self.nodes.append(oh.make_node(op_type, inputs, [result], **attributes))
        return result

    def batchnorm(self, x: str, channels: int) -> str:
        rng, stem = np.random.default_rng(len(self.nodes)), f"bn{len(self.nodes)}"
        arrays = [rng.uniform(0.5, 2, channels).astype(np.float32) for _ in range(4)]
        names = [
            self.inline(f"{stem}_{part}", array)
            for part, array in zip(("scale", "bias", "mean", "var"), arrays, strict=True)
        ]
        return self.node("BatchNormalization", x, *names)


def largest_bytes(vocabulary: int = VOCABULARY) -> int:
    """Bytes of the largest tensor of a model."""
    return vocabulary * WIDTH * FLOAT_BYTES


def write(folder: Path, gigabytes: float, vocabulary: int = VOCABULARY) -> Path:
    """Writes a model with weights of about ``gigabytes`` · 10⁹ bytes.

    An embedding (410 MB with that ``vocabulary``), then in turn a 3×3 Conv whose BatchNormalization goes into
    its weight (9 MB) and a MatMul (67 MB) that no fold touches; in the end a MatMul of the embedding's size
    with a BatchNormalization: what is edited is large, too. All large weights are zero: a sparse file.
    """
    path = folder / f"large-{gigabytes:g}gb.onnx"
    build = _Builder(f"{path.name}.data")
    table = build.external("embedding", (vocabulary, WIDTH))
    x = build.node("Gather", table, "tokens")
    pixels = "image"
    for block in range(10**6):
        pixels = build.node(
            "Conv", pixels, build.external(f"conv{block}", (CHANNELS, CHANNELS, 3, 3)), pads=[1, 1, 1, 1]
        )
        pixels = build.node("Relu", build.batchnorm(pixels, CHANNELS))
        x = build.node("Tanh", build.node("MatMul", x, build.external(f"matmul{block}", (WIDTH, WIDTH))))
        if build.size + largest_bytes(vocabulary) >= gigabytes * 1e9:
            break
    x = build.node("Reshape", x, build.inline("rows", np.array([-1, WIDTH])))
    x = build.node("MatMul", x, build.external("head", (WIDTH, vocabulary)))
    x = build.batchnorm(x, vocabulary)
    graph = oh.make_graph(
        build.nodes,
        "large",
        [
            oh.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "L"]),
            oh.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, "H", "W"]),
        ],
        [
            oh.make_tensor_value_info(x, TensorProto.FLOAT, ["NL", vocabulary]),
            oh.make_tensor_value_info(pixels, TensorProto.FLOAT, ["N", CHANNELS, "H", "W"]),
        ],
        build.tensors,
    )
    with (folder / build.data).open("wb") as file:
        file.truncate(build.size)
    onnx.save(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=10), path)
    return path
