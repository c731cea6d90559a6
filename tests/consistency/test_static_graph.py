"""Static findings on small models that have exactly one defect, and on ones that almost have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.numpy_helper import from_array

from normfold.consistency.static import static_findings
from normfold.reporting.report import Finding

Arrays = dict[str, np.ndarray]
SHAPE = ("N", 4, 5, 5)


def model(
    nodes: list[onnx.NodeProto],
    arrays: Arrays,
    *,
    opset: int = 17,
    shape: tuple[Any, ...] = SHAPE,
    extra_inputs: list[onnx.ValueInfoProto] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """``x`` through ``nodes`` to ``y``; arrays are float32 unless they are something else than float64."""
    initializers = [
        from_array(a.astype(helper.tensor_dtype_to_np_dtype(dtype)) if a.dtype == np.float64 else a, name)
        for name, a in arrays.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, shape), *(extra_inputs or [])],
        [helper.make_tensor_value_info("y", dtype, None)],
        initializers,
    )
    ir_version = 3 if opset < 9 else 8
    if ir_version < 4:
        for tensor in initializers:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def statistics(channels: int = 4, prefix: str = "", seed: int = 0, **replaced: Any) -> Arrays:
    """Parameters of one healthy layer."""
    rng = np.random.default_rng(seed)
    arrays = {
        "g": rng.uniform(0.5, 1.5, channels),
        "b": rng.normal(size=channels),
        "m": rng.normal(size=channels),
        "v": rng.uniform(0.5, 2, channels),
    } | {key: np.broadcast_to(np.asarray(v, dtype=np.float64), channels) for key, v in replaced.items()}
    return {prefix + key: value for key, value in arrays.items()}


def batchnorm(x: str = "x", y: str = "y", prefix: str = "", **attributes: Any) -> onnx.NodeProto:
    outputs = attributes.pop("outputs", [y])
    return helper.make_node("BatchNormalization", [x, *(prefix + p for p in "gbmv")], outputs, **attributes)


def one_layer(opset: int = 17, attributes: dict[str, Any] | None = None, **replaced: Any) -> onnx.ModelProto:
    return model([batchnorm(**(attributes or {}))], statistics(**replaced), opset=opset)


def found(proto: onnx.ModelProto) -> list[Finding]:
    return static_findings(ir.from_proto(proto))


def summary(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in found(proto)]


def test_a_healthy_layer_has_no_findings() -> None:
    assert summary(one_layer()) == []


class TestTrainingSemantics:
    @pytest.mark.parametrize("opset", [1, 6])
    def test_is_test_is_off_by_default(self, opset: int) -> None:
        legacy = {"consumed_inputs": [0, 0, 0, 1, 1]} if opset == 1 else {}
        assert summary(one_layer(opset, legacy)) == [("NF301", "error")]
        assert summary(one_layer(opset, {**legacy, "is_test": 1})) == []

    @pytest.mark.parametrize("opset", [7, 9, 13])
    def test_more_outputs_mean_training(self, opset: int) -> None:
        training = {"outputs": ["y", "mean", "var", "saved_mean", "saved_var"]}
        assert summary(one_layer(opset, training)) == [("NF301", "error")]
        assert summary(one_layer(opset)) == []

    @pytest.mark.parametrize("opset", [14, 15, 21])
    def test_training_mode(self, opset: int) -> None:
        assert summary(one_layer(opset, {"training_mode": 1, "outputs": ["y", "mean", "var"]})) == [
            ("NF301", "error")
        ]
        assert summary(one_layer(opset, {"training_mode": 0})) == []

    def test_in_a_branch(self) -> None:
        branches = []
        for name, mode in (("then", 1), ("else", 0)):
            body = helper.make_graph(
                [batchnorm(y=f"{name}_y", outputs=[f"{name}_y"] + ["m1", "v1"] * mode, training_mode=mode)],
                name,
                [],
                [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
            )
            branches.append(body)
        node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        proto = model([node], statistics(), extra_inputs=[condition])
        assert [(f.code, f.site) for f in found(proto)] == [("NF301", "then_y")]

    def test_a_standardised_weight_is_no_layer(self) -> None:
        nodes = [
            helper.make_node(
                "BatchNormalization",
                ["w", "one", "zero", "zero", "one"],
                ["u", "", ""],
                training_mode=1,
            ),
            helper.make_node("Reshape", ["u", "shape"], ["k"]),
            helper.make_node("Conv", ["x", "k"], ["y"]),
        ]
        rng = np.random.default_rng(0)
        arrays = {
            "w": rng.normal(size=(1, 3, 36)),
            "one": np.ones(3),
            "zero": np.zeros(3),
            "shape": np.array([3, 4, 3, 3]),
        }
        assert summary(model(nodes, arrays)) == []

    def test_statistics_computed_from_the_input(self) -> None:
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["x"], ["kept"], axes=[0, 2, 3], keepdims=1),
            helper.make_node("Sub", ["x", "kept"], ["d"]),
            helper.make_node("Mul", ["d", "d"], ["s"]),
            helper.make_node("ReduceMean", ["s"], ["var"], axes=[0, 2, 3], keepdims=0),
            helper.make_node("BatchNormalization", ["x", "g", "b", "mean", "var"], ["y"]),
        ]
        assert summary(model(nodes, statistics())) == [("NF301", "error")]

    def test_statistics_from_elsewhere_are_not_the_batch(self) -> None:
        style = helper.make_tensor_value_info("style", TensorProto.FLOAT, [4])
        nodes = [helper.make_node("BatchNormalization", ["x", "g", "b", "style", "v"], ["y"])]
        assert summary(model(nodes, statistics(), extra_inputs=[style])) == []

    @pytest.mark.parametrize(("axes", "expected"), [([0, 2, 3], [("NF301", "error")]), ([1, 2, 3], [])])
    def test_written_out(self, axes: list[int], expected: list[tuple[str, str]]) -> None:
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes),
            helper.make_node("Sub", ["x", "mean"], ["d"]),
            helper.make_node("Mul", ["d", "d"], ["s"]),
            helper.make_node("ReduceMean", ["s"], ["var"], axes=axes),
            helper.make_node("Add", ["var", "eps"], ["ve"]),
            helper.make_node("Sqrt", ["ve"], ["std"]),
            helper.make_node("Div", ["d", "std"], ["y"]),
        ]
        assert summary(model(nodes, {"eps": np.array(1e-5)})) == expected


class TestDropout:
    @staticmethod
    def dropout(opset: int, inputs: list[str], **attributes: Any) -> list[tuple[str, str]]:
        node = helper.make_node("Dropout", ["x", *inputs], ["y"], **attributes)
        arrays = {"half": np.array(0.5), "none": np.array(0.0), "on": np.array(True), "off": np.array(False)}
        used = {name: array for name, array in arrays.items() if name in inputs}
        mode = [helper.make_tensor_value_info("mode", TensorProto.BOOL, [])] if "mode" in inputs else []
        return summary(model([node], used, opset=opset, extra_inputs=mode))

    @pytest.mark.parametrize("opset", [12, 13, 22])
    def test_training_mode(self, opset: int) -> None:
        assert self.dropout(opset, ["half", "on"]) == [("NF302", "error")]
        assert self.dropout(opset, ["", "on"]) == [("NF302", "error")]
        assert self.dropout(opset, ["half", "off"]) == []
        assert self.dropout(opset, ["half"]) == []
        assert self.dropout(opset, ["none", "on"]) == []

    def test_is_test(self) -> None:
        assert self.dropout(6, [], ratio=0.5) == [("NF302", "error")]
        assert self.dropout(6, [], ratio=0.5, is_test=1) == []
        assert self.dropout(6, [], ratio=0.0) == []

    @pytest.mark.parametrize("opset", [7, 10])
    def test_never_active_from_opset_7_to_11(self, opset: int) -> None:
        assert self.dropout(opset, [], ratio=0.5) == []

    def test_the_caller_decides(self) -> None:
        assert self.dropout(17, ["half", "mode"]) == [("NF302", "info")]


class TestUntrained:
    def test_the_only_layer(self) -> None:
        assert summary(one_layer(m=0, v=1)) == [("NF304", "error")]

    def test_one_channel_of_another_value_is_trained(self) -> None:
        assert summary(one_layer(m=0, v=[1, 1, 1.001, 1])) == []
        assert summary(one_layer(m=[0, 0, 1e-6, 0], v=1)) == []

    @staticmethod
    def two(first: Arrays, second: Arrays) -> onnx.ModelProto:
        nodes = [batchnorm(y="h", prefix="a"), batchnorm("h", prefix="b")]
        return model(nodes, first | second)

    def test_all_layers(self) -> None:
        proto = self.two(statistics(prefix="a", m=0, v=1), statistics(prefix="b", m=0, v=1))
        (finding,) = found(proto)
        assert (finding.code, finding.severity) == ("NF304", "error")
        assert "all 2 layers (h, y)" in finding.message

    def test_some_layers(self) -> None:
        proto = self.two(statistics(prefix="a"), statistics(prefix="b", m=0, v=1))
        assert [(f.code, f.severity, f.site) for f in found(proto)] == [("NF304", "warn", "y")]

    @pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
    def test_an_affine_that_normfold_wrote_has_no_statistics(self, dtype: int) -> None:
        arrays = statistics(m=0, v=1 - np.float32(1e-5))
        renamed = {"g": "y_scale", "b": "y_bias", "m": "y_mean", "v": "y_var"}
        node = helper.make_node("BatchNormalization", ["x", *renamed.values()], ["y"])
        proto = model([node], {renamed[key]: value for key, value in arrays.items()}, dtype=dtype)
        proto.metadata_props.add(key="normfold", value="{}")
        assert summary(proto) == []


class TestImpossibleParameters:
    def test_negative_variance(self) -> None:
        (finding,) = found(one_layer(v=[1, -1e-7, 2, -3]))
        assert (finding.code, finding.severity, finding.site) == ("NF305", "error", "y")
        assert "2 of 4 channels (1, 3)" in finding.message
        assert "-3" in finding.message
        assert "still not positive in 1" in finding.message

    def test_zero_variance_is_only_a_dead_channel(self) -> None:
        assert summary(one_layer(v=[1, 0, 2, 3])) == [("NF313", "info")]

    @pytest.mark.parametrize("parameter", "gbmv")
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, parameter: str, value: float) -> None:
        codes = summary(one_layer(**{parameter: [1, 2, value, 1]}))
        assert ("NF306", "error") in codes
        negative = parameter == "v" and value == -np.inf
        assert {code for code, _ in codes} == ({"NF305", "NF306"} if negative else {"NF306"})

    @pytest.mark.parametrize("parameter", "gbm")
    def test_large_is_finite(self, parameter: str) -> None:
        codes = summary(one_layer(**{parameter: 3e38 if parameter != "g" else 3.0}))
        assert "NF306" not in {code for code, _ in codes}


class TestEpsilon:
    @pytest.mark.parametrize(
        ("epsilon", "expected"),
        [
            (1e-5, []),
            (1e-3, []),
            (0.0099, []),
            (0.01, [("NF307", "warn")]),
            (0.05, [("NF307", "warn")]),
            (0.1, [("NF308", "error")]),
            (0.8, [("NF308", "error")]),
            (0.99, [("NF308", "error")]),
            (2.0, [("NF307", "error")]),
        ],
    )
    def test_size(self, epsilon: float, expected: list[tuple[str, str]]) -> None:
        assert summary(one_layer(attributes={"epsilon": epsilon})) == expected

    @pytest.mark.parametrize(
        ("shape", "call"),
        [
            (("N", 4), "nn.BatchNorm1d(4, 0.8)"),
            (("N", 4, 5), "nn.BatchNorm1d(4, 0.8)"),
            (SHAPE, "nn.BatchNorm2d(4, 0.8)"),
            (("N", 4, 2, 2, 2), "nn.BatchNorm3d(4, 0.8)"),
        ],
    )
    def test_the_mistaken_call_is_named(self, shape: tuple[Any, ...], call: str) -> None:
        (finding,) = found(model([batchnorm(epsilon=0.8)], statistics(), shape=shape))
        assert call in finding.message

    @pytest.mark.parametrize(
        ("op_type", "code"), [("InstanceNormalization", "NF308"), ("LayerNormalization", "NF307")]
    )
    def test_of_other_normalisations(self, op_type: str, code: str) -> None:
        arrays = {"g": np.ones(4), "b": np.ones(4)}
        shape = SHAPE if op_type == "InstanceNormalization" else ("N", 5, 4)
        for epsilon, expected in ((0.8, [(code, "error")]), (1e-5, [])):
            node = helper.make_node(op_type, ["x", "g", "b"], ["y"], epsilon=epsilon)
            assert summary(model([node], arrays, shape=shape)) == expected

    @pytest.mark.parametrize(("second", "expected"), [(1e-5, []), (1e-3, [("NF309", "info")])])
    def test_mixed(self, second: float, expected: list[tuple[str, str]]) -> None:
        nodes = [batchnorm(y="h", prefix="a", epsilon=1e-5), batchnorm("h", prefix="b", epsilon=second)]
        proto = model(nodes, statistics(prefix="a") | statistics(prefix="b", seed=1))
        assert summary(proto) == expected

    @pytest.mark.parametrize("outside", [True, False])
    @pytest.mark.parametrize("computed", [True, False], ids=["computed", "running"])
    def test_outside_the_square_root(self, outside: bool, computed: bool) -> None:
        deviation = helper.make_node("Sub", ["x", "mean"], ["d"])
        nodes = [deviation]
        if computed:
            mean = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3])
            square = helper.make_node("Mul", ["d", "d"], ["s"])
            nodes = [mean, deviation, square, helper.make_node("ReduceMean", ["s"], ["var"], axes=[2, 3])]
        steps = [("Sqrt", []), ("Add", ["eps"])] if outside else [("Add", ["eps"]), ("Sqrt", [])]
        nodes.append(helper.make_node(steps[0][0], ["var", *steps[0][1]], ["t"]))
        nodes.append(helper.make_node(steps[1][0], ["t", *steps[1][1]], ["std"]))
        nodes.append(helper.make_node("Div", ["d", "std"], ["y"]))
        arrays = {"eps": np.array(1e-5)}
        if not computed:
            rng = np.random.default_rng(0)
            arrays |= {"mean": rng.normal(size=(4, 1, 1)), "var": rng.uniform(1, 2, (4, 1, 1))}
        assert summary(model(nodes, arrays)) == ([("NF317", "info")] if outside else [])

    def test_a_distance_over_its_norm_is_no_normalisation(self) -> None:
        nodes = [
            helper.make_node("Sub", ["x", "centre"], ["d"]),
            helper.make_node("Mul", ["d", "d"], ["s"]),
            helper.make_node("Sqrt", ["s"], ["r"]),
            helper.make_node("Add", ["r", "eps"], ["re"]),
            helper.make_node("Div", ["d", "re"], ["y"]),
        ]
        assert summary(model(nodes, {"centre": np.ones((4, 1, 1)), "eps": np.array(1e-5)})) == []


class TestChannels:
    def test_amplification(self) -> None:
        (finding, *rest) = found(one_layer(g=[1, 40, 1, 1], v=[1, 0, 1, 1], m=0.0))
        assert (finding.code, finding.severity, finding.site) == ("NF310", "warn", "y")
        assert "1 of 4 channels (1)" in finding.message
        assert "1.26e+04" in finding.message
        assert {other.code for other in rest} == {"NF313"}

    def test_almost_amplification(self) -> None:
        assert "NF310" not in {code for code, _ in summary(one_layer(g=[1, 30, 1, 1], v=[1, 0, 1, 1]))}

    @pytest.mark.parametrize(
        ("replaced", "why"),
        [
            ({"g": [1, 0, 1, 1]}, "scale is 0 in 1 of 4 channels (1)"),
            ({"g": [1, 1e-9, 1, 1]}, "scale is next to nothing in 1 of 4 channels (1)"),
            ({"v": [1, 0, 1, 1]}, "running variance is 0 in 1 of 4 channels (1)"),
        ],
    )
    def test_dead(self, replaced: dict[str, Any], why: str) -> None:
        messages = [f.message for f in found(one_layer(**replaced)) if f.code == "NF313"]
        assert len(messages) == 1
        assert why in messages[0]

    @pytest.mark.parametrize("replaced", [{"g": [1, 1e-3, 1, 1]}, {"v": [1, 1e-4, 1, 1]}, {"g": 1e-4}])
    def test_quiet_is_not_dead(self, replaced: dict[str, Any]) -> None:
        assert "NF313" not in {code for code, _ in summary(one_layer(**replaced))}

    @pytest.mark.parametrize(("shift", "expected"), [(-11.0, ["NF313"]), (-9.0, [])])
    def test_shut_by_relu(self, shift: float, expected: list[str]) -> None:
        nodes = [batchnorm(y="h"), helper.make_node("Relu", ["h"], ["y"])]
        arrays = statistics(g=1, b=[0, shift, 0, 0])
        assert [code for code, _ in summary(model(nodes, arrays))] == expected


class TestFloat16:
    @staticmethod
    def conv(weight: float, bias: float = 0.0, **replaced: Any) -> list[Finding]:
        nodes = [helper.make_node("Conv", ["x", "w", "c"], ["h"]), batchnorm("h")]
        arrays = statistics(**{"g": 1, "m": 0.5, "v": 1, "b": 0.25} | replaced)
        arrays |= {"w": np.full((4, 4, 1, 1), weight), "c": np.full(4, bias)}
        return [finding for finding in found(model(nodes, arrays)) if finding.code in ("NF311", "NF312")]

    def test_beyond_the_range(self) -> None:
        (finding,) = self.conv(1.0, g=[1, 300, 1, 1], v=[1, 1e-6, 1, 1])
        assert (finding.code, finding.severity) == ("NF311", "info")
        assert "9.05e+04" in finding.message
        assert self.conv(1.0, g=[1, 200, 1, 1], v=[1, 1e-6, 1, 1]) == []

    def test_a_bias_beyond_the_range(self) -> None:
        (finding,) = self.conv(1.0, m=[0, 7e4, 0, 0])
        assert (finding.code, finding.severity) == ("NF311", "info")
        assert self.conv(1.0, m=[0, 6e4, 0, 0]) == []

    def test_the_bias_in_front_counts(self) -> None:
        assert self.conv(1.0, bias=7e4, m=7e4) == []

    def test_subnormal(self) -> None:
        (finding,) = self.conv(1e-2, g=[1, 1e-3, 1, 1])
        assert (finding.code, finding.severity) == ("NF312", "info")
        assert "1e-05" in finding.message
        assert self.conv(1e-1, g=[1, 1e-3, 1, 1]) == []

    def test_without_a_weight_in_front(self) -> None:
        assert ("NF312", "info") in summary(one_layer(g=[1, 1e-5, 1, 1], v=1))
        assert ("NF311", "info") in summary(one_layer(b=[1, 7e4, 1, 1]))


class TestRedundantBias:
    @staticmethod
    def producer(kind: str, bias: float) -> tuple[list[onnx.NodeProto], Arrays, tuple[Any, ...]]:
        rng = np.random.default_rng(3)
        c = np.full(4, bias)
        if kind == "Conv":
            return (
                [helper.make_node("Conv", ["x", "w", "c"], ["h"])],
                {
                    "w": rng.normal(size=(4, 4, 3, 3)),
                    "c": c,
                },
                SHAPE,
            )
        if kind == "ConvTranspose":
            node = helper.make_node("ConvTranspose", ["x", "w", "c"], ["h"], group=2)
            return [node], {"w": rng.normal(size=(4, 2, 3, 3)), "c": c}, SHAPE
        if kind == "Gemm":
            node = helper.make_node("Gemm", ["x", "w", "c"], ["h"], transB=1)
            return [node], {"w": rng.normal(size=(4, 7)), "c": c}, ("N", 7)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("Add", ["c", "p"], ["h"]),
        ]
        return nodes, {"w": rng.normal(size=(7, 4)), "c": c}, ("N", 7)

    @pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
    @pytest.mark.parametrize("norm", ["BatchNormalization", "InstanceNormalization"])
    def test_in_front_of(self, kind: str, norm: str) -> None:
        if norm == "InstanceNormalization" and kind in ("Gemm", "MatMul"):
            pytest.skip("InstanceNormalization needs positions")
        for bias, expected in ((0.25, [("NF314", "info")]), (0.0, [])):
            nodes, arrays, shape = self.producer(kind, bias)
            if norm == "BatchNormalization":
                nodes.append(batchnorm("h"))
            else:
                nodes.append(helper.make_node(norm, ["h", "g", "b"], ["y"]))
            layer = {key: value for key, value in statistics().items() if key in nodes[-1].input}
            assert summary(model(nodes, arrays | layer, shape=shape)) == expected

    def test_another_reader_needs_the_bias(self) -> None:
        nodes, arrays, shape = self.producer("Conv", 0.25)
        nodes += [batchnorm("h", "n"), helper.make_node("Add", ["n", "h"], ["y"])]
        assert summary(model(nodes, arrays | statistics(), shape=shape)) == []


class TestShapes:
    @pytest.mark.parametrize(("positions", "expected"), [(1, [("NF316", "info")]), (2, [])])
    def test_instance_norm(self, positions: int, expected: list[tuple[str, str]]) -> None:
        node = helper.make_node("InstanceNormalization", ["x", "g", "b"], ["y"])
        arrays = {"g": np.ones(4), "b": np.ones(4)}
        assert summary(model([node], arrays, shape=("N", 4, 1, positions))) == expected

    @pytest.mark.parametrize(("groups", "expected"), [(4, [("NF316", "info")]), (2, [])])
    def test_group_norm(self, groups: int, expected: list[tuple[str, str]]) -> None:
        node = helper.make_node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=groups)
        arrays = {"g": np.ones(4), "b": np.ones(4)}
        assert summary(model([node], arrays, shape=("N", 4, 1, 1), opset=21)) == expected

    @pytest.mark.parametrize(("size", "expected"), [(1, [("NF316", "info")]), (2, [])])
    def test_layer_norm(self, size: int, expected: list[tuple[str, str]]) -> None:
        node = helper.make_node("LayerNormalization", ["x", "g"], ["y"])
        assert summary(model([node], {"g": np.ones(size)}, shape=("N", 4, size))) == expected

    @pytest.mark.parametrize(("batch", "expected"), [(1, True), (2, False), ("N", False)])
    def test_batch_of_one_vector_in_training(self, batch: int | str, expected: bool) -> None:
        node = batchnorm(training_mode=1, outputs=["y", "m1", "v1"])
        codes = [code for code, _ in summary(model([node], statistics(), shape=(batch, 4)))]
        assert ("NF316" in codes) == expected

    @pytest.mark.parametrize(("spatial", "expected"), [(0, [("NF318", "info")]), (1, [])])
    def test_statistics_per_position(self, spatial: int, expected: list[tuple[str, str]]) -> None:
        rng = np.random.default_rng(0)
        shape = (4, 5, 5) if spatial == 0 else (4,)
        arrays = {key: rng.uniform(0.5, 2, shape) for key in "gbmv"}
        assert summary(model([batchnorm(spatial=spatial)], arrays, opset=8, shape=(1, 4, 5, 5))) == expected


class TestCaffe:
    """Conv-BatchNorm-Scale-ReLU as converters from Caffe write it, with true statistics of random data."""

    @staticmethod
    def network(factors: tuple[float, float]) -> onnx.ModelProto:
        rng = np.random.default_rng(7)
        nodes: list[onnx.NodeProto] = []
        arrays: Arrays = {}
        x, data = "x", rng.normal(size=(64, 4, 6, 6))
        for i in range(3):
            w = rng.normal(size=(8, data.shape[1], 1, 1)) / np.sqrt(data.shape[1])
            scale, shift = rng.uniform(0.5, 1.5, 8), rng.normal(size=8)
            data = np.einsum("oihw,nixy->noxy", w, data)
            mean, var = data.mean((0, 2, 3)), data.var((0, 2, 3))
            arrays |= {f"w{i}": w, f"s{i}": scale.reshape(8, 1, 1), f"t{i}": shift.reshape(8, 1, 1)}
            arrays |= {
                f"{i}g": np.ones(8),
                f"{i}b": np.zeros(8),
                f"{i}m": mean * factors[0],
                f"{i}v": var * factors[1],
            }
            nodes += [
                helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"]),
                batchnorm(f"c{i}", f"n{i}", str(i)),
                helper.make_node("Mul", [f"n{i}", f"s{i}"], [f"p{i}"]),
                helper.make_node("Add", [f"p{i}", f"t{i}"], [f"q{i}"]),
                helper.make_node("Relu", [f"q{i}"], ["y" if i == 2 else f"r{i}"]),
            ]
            data = (data - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
            data = np.maximum(data * scale[:, None, None] + shift[:, None, None], 0)
            x = f"r{i}"
        return model(nodes, arrays, shape=("N", 4, 6, 6))

    @pytest.mark.parametrize("factor", [999.98, 50.0])
    def test_not_divided(self, factor: float) -> None:
        (finding,) = [f for f in found(self.network((factor, factor))) if f.code == "NF315"]
        assert finding.severity == "info"
        guessed = float(finding.message.split(" about ")[1].split(" times")[0])
        assert guessed == pytest.approx(factor, rel=0.3)

    @pytest.mark.parametrize("factors", [(1.0, 1.0), (1.0, 1000.0), (1000.0, 1.0), (2.0, 2.0)])
    def test_almost(self, factors: tuple[float, float]) -> None:
        assert "NF315" not in {code for code, _ in summary(self.network(factors))}


def test_parameters_may_be_expressions() -> None:
    nodes = [
        helper.make_node("Mul", ["v0", "minus"], ["v"]),
        batchnorm(),
    ]
    arrays = statistics()
    arrays["v0"] = arrays.pop("v")
    assert summary(model(nodes, arrays | {"minus": np.array(-1.0)})) == [("NF305", "error")]


def test_a_bias_that_is_no_vector() -> None:
    """The checker lets it pass; what is behind such a Conv is judged without it."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["x", "w", "bias"], ["c"]), batchnorm("c")]
    arrays = statistics() | {"w": rng.normal(size=(4, 4, 1, 1)), "bias": np.zeros((4, 2))}
    assert summary(model(nodes, arrays)) == []


def test_inside_a_function() -> None:
    function = helper.make_function(
        "local", "Norm", ["x", "g", "b", "m", "v"], ["y"], [batchnorm()], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("Norm", ["x", "g", "b", "m", "v"], ["y"], domain="local")
    proto = model([call], statistics(m=0, v=1))
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert summary(proto) == [("NF304", "error")]


def test_the_model_is_not_changed() -> None:
    proto = one_layer(m=0, v=1)
    loaded = ir.from_proto(proto)
    before = ir.to_proto(loaded).SerializeToString()
    static_findings(loaded)
    assert ir.to_proto(loaded).SerializeToString() == before
    assert numpy_helper.to_array(proto.graph.initializer[0]).shape == (4,)
