"""The checked-in LeNet files are what their training script says: trained, small, free of machine paths."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

FOLDER = Path(__file__).parents[2] / "models" / "trained"
FILES = ("lenet_digits", "lenet_digits_bn", "lenet_digits_handwritten")


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "digits_heldout.npz") as data:
        return data["images"], data["labels"]


def run(path: Path, images: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    return logits


@pytest.mark.parametrize("name", FILES)
def test_held_out_accuracy(name: str, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = held_out
    assert np.mean(run(FOLDER / f"{name}.onnx", images).argmax(1) == labels) > 0.95


@pytest.mark.parametrize("name", FILES)
def test_batch_is_dynamic(name: str, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    images, _ = held_out
    together = run(FOLDER / f"{name}.onnx", images[:5])
    one_by_one = np.concatenate([run(FOLDER / f"{name}.onnx", images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("name", FILES)
def test_file_agrees_with_torch_weights(name: str, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    from models.lenet import HandwrittenBatchNorm, LeNet

    handwritten = name.endswith("handwritten")
    model = LeNet(HandwrittenBatchNorm) if handwritten else LeNet()
    weights = FOLDER / f"{name.removesuffix('_bn')}.pt"
    model.load_state_dict(torch.load(weights, weights_only=True))
    images, _ = held_out
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run(FOLDER / f"{name}.onnx", images), expected, rtol=0, atol=2e-5)


def test_which_normalisation_is_left() -> None:
    ops = {name: Counter(n.op_type for n in onnx.load(FOLDER / f"{name}.onnx").graph.node) for name in FILES}
    assert ops["lenet_digits"]["BatchNormalization"] == 0
    assert ops["lenet_digits_bn"]["BatchNormalization"] == 4
    assert ops["lenet_digits_handwritten"]["BatchNormalization"] == 0
    assert [ops["lenet_digits_handwritten"][op] for op in ("Sub", "Mul", "Div", "Add")] == [4, 4, 4, 4]


def test_statistics_are_trained() -> None:
    """No BatchNorm of the file is near the identity, so a fold that forgets one moves the logits."""
    graph = onnx.load(FOLDER / "lenet_digits_bn.onnx").graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            gamma, beta, mean, var = (values[name] for name in node.input[1:])
            scale = gamma / np.sqrt(var + 1e-5)
            assert np.median(np.abs(scale - 1)) > 0.1
            assert np.median(np.abs(beta - mean * scale)) > 0.1


def test_folder_is_small_and_names_no_machine() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for name in FILES:
        content = (FOLDER / f"{name}.onnx").read_bytes()
        assert b"stack_trace" not in content
        assert b"site-packages" not in content


@pytest.mark.torch
def test_handwritten_layer_follows_its_own_moving_average() -> None:
    """One training step and the evaluation after it, against the formulas in numpy."""
    torch = pytest.importorskip("torch")
    from models.lenet import HandwrittenBatchNorm

    x = np.random.default_rng(0).normal(3.0, 2.0, (7, 4, 5, 5)).astype(np.float32)
    layer = HandwrittenBatchNorm(4, 4, eps=1e-3, momentum=0.25)
    layer.train()(torch.from_numpy(x))
    batch = x.astype(np.float64)
    mean = 0.25 * batch.mean((0, 2, 3), keepdims=True)
    var = 0.75 + 0.25 * batch.var((0, 2, 3), keepdims=True)
    with torch.no_grad():
        actual = layer.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(actual, (batch - mean) / np.sqrt(var + 1e-3), rtol=0, atol=5e-6)
