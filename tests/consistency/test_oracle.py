"""Training mode in float64 against torch, and what is measured with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from normfold.consistency.oracle import measure_gap, train_mode
from normfold.consistency.training import open_batch

RNG = np.random.default_rng(0)


def batchnorm_model(channels: int, spatial: tuple[int, ...], opset: int = 15, layers: int = 1) -> ir.Model:
    nodes, initializers = [], []
    value = "x"
    for index in range(layers):
        arrays = {
            "g": RNG.normal(1, 0.3, channels),
            "b": RNG.normal(0, 0.3, channels),
            "m": RNG.normal(0, 1, channels),
            "v": RNG.uniform(0.5, 2, channels),
        }
        initializers += [
            numpy_helper.from_array(a.astype(np.float32), f"{n}{index}") for n, a in arrays.items()
        ]
        out = "y" if index == layers - 1 else f"h{index}"
        nodes.append(
            helper.make_node(
                "BatchNormalization", [value, *(f"{n}{index}" for n in arrays)], [out], epsilon=1e-3
            )
        )
        value = out
        if index < layers - 1:
            nodes.append(helper.make_node("Sigmoid", [value], [f"s{index}"]))
            value = f"s{index}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, *spatial])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", channels, *spatial])],
        initializers,
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    )


@pytest.mark.torch
@pytest.mark.parametrize("batch", [1, 2, 8, 64])
@pytest.mark.parametrize("spatial", [(), (5,), (4, 3), (3, 2, 4)])
def test_equals_torch_in_training(batch: int, spatial: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    if batch == 1 and not spatial:
        pytest.skip("torch refuses to train on one value per channel")
    model = batchnorm_model(3, spatial, layers=2)
    x = RNG.normal(0.5, 2, (batch, 3, *spatial)).astype(np.float32)
    value = torch.from_numpy(x).double()
    for index in range(2):
        g, b = (
            torch.from_numpy(model.graph.initializers[f"{n}{index}"].const_value.numpy().copy()).double()
            for n in "gb"
        )
        value = torch.nn.functional.batch_norm(value, None, None, g, b, True, 0.1, float(np.float32(1e-3)))
        value = torch.sigmoid(value) if index == 0 else value
    actual = train_mode(model, {"x": x})["y"]
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, value.numpy(), rtol=0, atol=1e-12 * float(value.abs().max()))


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15])
def test_every_opset_trains(opset: int) -> None:
    model = batchnorm_model(3, (4, 4), opset)
    x = RNG.normal(3, 2, (6, 3, 4, 4)).astype(np.float32)
    g, b = (model.graph.initializers[f"{n}0"].const_value.numpy().reshape(1, -1, 1, 1) for n in "gb")
    d = x.astype(np.float64)
    expected = (d - d.mean((0, 2, 3), keepdims=True)) / np.sqrt(
        d.var((0, 2, 3), keepdims=True) + np.float64(np.float32(1e-3))
    ) * g + b
    np.testing.assert_allclose(train_mode(model, {"x": x})["y"], expected, rtol=0, atol=1e-12)


def test_one_layer_at_a_time() -> None:
    model = batchnorm_model(2, (3,), layers=2)
    x = RNG.normal(0, 1, (4, 2, 3)).astype(np.float32)
    first, both = train_mode(model, {"x": x}, {"h0"}), train_mode(model, {"x": x})
    assert np.abs(first["y"].mean((0, 2)) - both["y"].mean((0, 2))).max() > 1e-3
    beta = model.graph.initializers["b1"].const_value.numpy()
    np.testing.assert_allclose(both["y"].mean((0, 2)), beta, atol=1e-7)


def test_model_is_not_changed() -> None:
    model = batchnorm_model(2, (3,))
    before = ir.to_proto(model).SerializeToString()
    train_mode(model, {"x": np.zeros((2, 2, 3), np.float32)})
    assert ir.to_proto(model).SerializeToString() == before


def test_gap_falls_to_zero_where_statistics_are_the_batch() -> None:
    model = batchnorm_model(2, (3,))
    x = RNG.normal(0, 1, (8, 2, 3)).astype(np.float32)
    d = x.astype(np.float64)
    for name, values in (("m0", d.mean((0, 2))), ("v0", d.var((0, 2)))):
        model.graph.initializers[name].const_value = ir.tensor(values, name=name)
    gap = measure_gap(model, [{"x": x}], batch_sizes=(2, 8))
    by_size = {g.batch_size: g for g in gap.gaps}
    assert by_size[8].largest < 1e-12
    assert by_size[2].relative > 0.1
    assert gap.batch_dependence == {"y": 0.0}


def reshaping_model(
    target: list[int], second: list[int] | None = None, extra: bool = False, batch: int | str = 1
) -> ir.Model:
    """[batch, 2, 3, 4] → Reshape → Relu; ``extra`` adds an Expand that carries the batch too."""
    nodes = [helper.make_node("Reshape", ["x", "t"], ["r"]), helper.make_node("Relu", ["r"], ["a"])]
    initializers = [numpy_helper.from_array(np.array(target, np.int64), "t")]
    last = "a"
    if second:
        nodes.append(helper.make_node("Reshape", [last, "t2"], ["b"]))
        initializers.append(numpy_helper.from_array(np.array(second, np.int64), "t2"))
        last = "b"
    if extra:
        nodes.append(helper.make_node("ReduceSum", [last, "axes"], ["c"], keepdims=1))
        initializers.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
        last = "c"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 3, 4])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(model)


@pytest.mark.parametrize(
    ("target", "second", "relaxed"),
    [
        ([1, -1], None, ("r",)),
        ([1, 2, 12], None, ("r",)),
        ([2, 12], [1, 24], ("r", "b")),
        ([1, 6, -1], [1, 24], ("r", "b")),
        ([0, -1], None, ()),
        ([1, 0, -1], None, ("r",)),
        ([-1, 24], None, ()),
    ],
)
def test_baked_in_batch_size(target: list[int], second: list[int] | None, relaxed: tuple[str, ...]) -> None:
    sample = {"x": RNG.normal(size=(1, 2, 3, 4)).astype(np.float32)}
    opened = open_batch(reshaping_model(target, second), sample)
    assert opened.relaxed == relaxed
    assert opened.closed is None


def test_target_as_torch_writes_it() -> None:
    model = reshaping_model([1, 6, -1], [1, 24])
    for node in model.graph:
        if node.op_type == "Reshape":
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 1)
    opened = open_batch(model, {"x": RNG.normal(size=(1, 2, 3, 4)).astype(np.float32)})
    assert opened.closed is None and opened.relaxed == ("r", "b")


def test_batch_size_that_more_than_reshape_carries() -> None:
    sample = {"x": RNG.normal(size=(1, 2, 3, 4)).astype(np.float32)}
    opened = open_batch(reshaping_model([1, -1], extra=True), sample)
    assert opened.closed is not None and opened.relaxed == ()
    gap = measure_gap(opened.model, [sample])
    assert any("only batch size 1" in note for note in gap.notes)


def test_output_that_depends_on_the_batch() -> None:
    model = batchnorm_model(2, (3,))
    node = next(iter(model.graph))
    node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    gap = measure_gap(model, [{"x": RNG.normal(size=(4, 2, 3)).astype(np.float32)}])
    assert gap.batch_dependence["y"] > 0.1


def test_images_of_several_sizes() -> None:
    """No 64 of them have one size, but 8 have."""
    model = batchnorm_model(2, (3,))
    model.graph.inputs[0].shape = ir.Shape(["N", 2, "L"])
    images = [{"x": RNG.normal(size=(16, 2, size)).astype(np.float32)} for size in (3, 4, 3, 4)]
    gap = measure_gap(model, images)
    assert {g.batch_size for g in gap.gaps} == {1, 2, 8}
    assert any("batch size 64" in note for note in gap.notes)


def test_out_of_time_the_largest_batch_is_measured() -> None:
    model = batchnorm_model(2, (3,), layers=2)
    gap = measure_gap(model, [{"x": RNG.normal(size=(64, 2, 3)).astype(np.float32)}], budget_seconds=0.0)
    assert [g.batch_size for g in gap.gaps] == [64]
    assert gap.layers == []
    assert any("out of time" in note and "8, 2, 1" in note for note in gap.notes)
    assert any("2 of 2 layers" in note for note in gap.notes)


def test_batches_stay_within_memory() -> None:
    """A value of 4 MiB per image: 64 images make 256 MiB, and 128 do not fit."""
    model = batchnorm_model(8, (256, 256))
    opened = open_batch(model, {"x": np.zeros((3, 8, 256, 256), np.float32)})
    assert opened.largest == 4 * 1024**2
    assert [opened.within_memory(images) for images in (8, 64, 128)] == [8, 64, 64]
    assert replace(opened, largest=1e12).within_memory(64) == 16


def test_oracle_takes_smaller_batches_where_memory_asks_for_it() -> None:
    model = batchnorm_model(3, (4,), layers=2)
    batches = [{"x": RNG.normal(size=(32, 3, 4)).astype(np.float32)} for _ in range(2)]
    opened = replace(open_batch(model, batches[0]), largest=16 * 1024**2)
    gap = measure_gap(model, batches, opened=opened)
    assert sorted({g.batch_size for g in gap.gaps}) == [1, 2, 8, 16]
    assert any("16 instead" in note for note in gap.notes)


def test_open_batch_is_tried_on_few_images() -> None:
    """A size baked in is still seen with all of them."""
    sample = {"x": RNG.normal(size=(6, 2, 3, 4)).astype(np.float32)}
    opened = open_batch(reshaping_model([6, 24], batch="N"), sample)
    assert opened.closed is None and opened.relaxed == ("r",)
