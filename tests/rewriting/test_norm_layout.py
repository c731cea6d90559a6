"""com.microsoft.GroupNorm works channels-last: Transposes between neighbours go, and SiLU goes inside."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
import torch

from normfold import fold
from normfold.evaluation import Evaluator
from normfold.folding import Folded, fold_model
from normfold.options import FoldOptions

SHAPE = (2, 12, 4, 5)
GROUPS = 3
RNG = np.random.default_rng(7)
TENSORS = {name: RNG.standard_normal(12).astype(np.float32) for name in ("gamma", "beta", "gamma2", "beta2")}


def model_of(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",), half: bool = False) -> ir.Model:
    dtype = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", dtype, SHAPE)],
        [oh.make_tensor_value_info(name, dtype, SHAPE) for name in outputs],
        [
            onnx.numpy_helper.from_array(a.astype(np.float16) if half else a, n)
            for n, a in TENSORS.items()
            if any(n in node.input for node in nodes)
        ],
    )
    return ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10))


def norm(x: str, y: str, suffix: str = "") -> onnx.NodeProto:
    operands = [x, f"gamma{suffix}", f"beta{suffix}"]
    return oh.make_node("GroupNormalization", operands, [y], num_groups=GROUPS)


def torch_norm(x: torch.Tensor, suffix: str = "") -> torch.Tensor:
    gamma, beta = (torch.tensor(TENSORS[f"{name}{suffix}"]).double() for name in ("gamma", "beta"))
    return torch.nn.functional.group_norm(x, GROUPS, gamma, beta, float(np.float32(1e-5)))


def folded(model: ir.Model) -> Folded:
    result = fold_model(model, FoldOptions(groupnorm="ms-groupnorm"))
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    return result


def operators(result: Folded) -> list[str]:
    return [node.op_type for node in result.model.graph]


def run(result: Folded) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    x = RNG.standard_normal(SHAPE)
    return Evaluator(result.model).run({"x": x}), torch.tensor(x)


def silu(x: str, y: str) -> list[onnx.NodeProto]:
    return [oh.make_node("Sigmoid", [x], [f"{y}_gate"]), oh.make_node("Mul", [x, f"{y}_gate"], [y])]


def test_silu_goes_inside() -> None:
    result = folded(model_of(norm("x", "n"), *silu("n", "y")))
    assert operators(result) == ["Transpose", "GroupNorm", "Transpose"]
    attributes = result.model.graph.node(1).attributes
    assert attributes.get_int("activation") == attributes.get_int("channels_last") == 1
    assert result.model.opset_imports["com.microsoft"] == 1
    values, x = run(result)
    expected = torch.nn.functional.silu(torch_norm(x))
    np.testing.assert_allclose(values["y"], expected.numpy(), rtol=1e-12, atol=1e-12)
    (site,) = result.sites
    assert (site.site, site.action, site.into) == ("n", "substituted", ("y",))


def test_silu_that_is_not_alone_stays() -> None:
    """The value in front of the SiLU is an output too."""
    result = folded(model_of(norm("x", "n"), *silu("n", "y"), outputs=("n", "y")))
    assert operators(result) == ["Transpose", "GroupNorm", "Transpose", "Sigmoid", "Mul"]
    values, x = run(result)
    np.testing.assert_allclose(values["n"], torch_norm(x).numpy(), rtol=1e-12, atol=1e-12)


def test_neighbours_stay_channels_last() -> None:
    result = folded(model_of(norm("x", "n"), *silu("n", "s"), norm("s", "y", "2")))
    assert operators(result) == ["Transpose", "GroupNorm", "GroupNorm", "Transpose"]
    values, x = run(result)
    expected = torch_norm(torch.nn.functional.silu(torch_norm(x)), "2")
    np.testing.assert_allclose(values["y"], expected.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("between", ["nothing", "silu"])
@pytest.mark.parametrize("form", ["instancenorm-bn", "layernorm", "primitive"])
def test_neighbours_in_other_forms(form: str, between: str) -> None:
    gate = silu("n", "s") if between == "silu" else [oh.make_node("Identity", ["n"], ["s"])]
    result = fold_model(model_of(norm("x", "n"), *gate, norm("s", "y", "2")), FoldOptions(groupnorm=form))
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    values, x = run(result)
    inner = torch_norm(x)
    expected = torch_norm(torch.nn.functional.silu(inner) if between == "silu" else inner, "2").numpy()
    np.testing.assert_allclose(values["y"], expected, rtol=1e-6, atol=1e-6)


def test_pointwise_operators_work_on_either_layout() -> None:
    nodes = [norm("x", "n"), oh.make_node("Tanh", ["n"], ["t"]), oh.make_node("Relu", ["t"], ["r"])]
    model = model_of(*nodes, norm("r", "y", "2"))
    result = folded(model)
    assert operators(result) == ["Transpose", "GroupNorm", "Tanh", "Relu", "GroupNorm", "Transpose"]
    names = {value.name for node in result.model.graph for value in node.outputs}
    assert not names & {"t", "r"}, "they mean something else now"
    values, x = run(result)
    expected = torch_norm(torch.relu(torch.tanh(torch_norm(x))), "2")
    np.testing.assert_allclose(values["y"], expected.numpy(), rtol=1e-11, atol=1e-11)
    assert fold(model, groupnorm="ms-groupnorm", allow_unstable=True).report.verification.verdict == "pass"


def test_a_value_between_that_others_read_keeps_its_layout() -> None:
    nodes = [norm("x", "n"), oh.make_node("Relu", ["n"], ["r"]), norm("r", "m", "2")]
    result = folded(model_of(*nodes, oh.make_node("Add", ["r", "m"], ["y"])))
    assert operators(result).count("Transpose") == 4
    values, x = run(result)
    r = torch.relu(torch_norm(x))
    np.testing.assert_allclose(values["y"], (r + torch_norm(r, "2")).numpy(), rtol=1e-11, atol=1e-11)


def test_a_value_between_that_is_an_output_keeps_its_layout() -> None:
    nodes = [norm("x", "n"), oh.make_node("Relu", ["n"], ["r"]), norm("r", "y", "2")]
    result = folded(model_of(*nodes, outputs=("r", "y")))
    assert operators(result).count("Transpose") == 4
    values, x = run(result)
    r = torch.relu(torch_norm(x))
    np.testing.assert_allclose(values["r"], r.numpy(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(values["y"], torch_norm(r, "2").numpy(), rtol=1e-11, atol=1e-11)


def test_a_transpose_of_another_order_undoes_nothing() -> None:
    turned = oh.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2])
    model = model_of(turned, norm("t", "y"))
    model.graph.outputs[0].shape = ir.Shape((2, 12, 5, 4))
    result = folded(model)
    assert operators(result) == ["Transpose", "Transpose", "GroupNorm", "Transpose"]
    values, x = run(result)
    expected = torch_norm(x.transpose(2, 3))
    np.testing.assert_allclose(values["y"], expected.numpy(), rtol=1e-11, atol=1e-11)


def test_a_residual_reads_the_channels_first_value() -> None:
    nodes = [norm("x", "n"), norm("n", "m", "2"), oh.make_node("Add", ["n", "m"], ["y"])]
    result = folded(model_of(*nodes))
    assert sorted(operators(result)) == sorted(
        ["Transpose", "GroupNorm", "Transpose", "GroupNorm", "Transpose", "Add"]
    )
    values, x = run(result)
    n = torch_norm(x)
    np.testing.assert_allclose(values["y"], (n + torch_norm(n, "2")).numpy(), rtol=1e-11, atol=1e-11)


def test_float16_is_the_case_it_is_chosen_for() -> None:
    for half, operator in ((True, "GroupNorm"), (False, "InstanceNormalization")):
        result = fold_model(model_of(norm("x", "y"), half=half), FoldOptions(target="ort-cuda"))
        assert operator in operators(result)
    parameters = {
        v.name: v.dtype for v in folded(model_of(norm("x", "y"), half=True)).model.graph.initializers.values()
    }
    assert set(parameters.values()) == {ir.DataType.FLOAT}


def test_it_is_found_again_and_stays() -> None:
    result = folded(model_of(norm("x", "n"), *silu("n", "s"), norm("s", "y", "2")))
    assert not fold_model(result.model, FoldOptions(groupnorm="ms-groupnorm")).changed
    back = fold_model(result.model, FoldOptions(groupnorm="native"))
    assert "GroupNorm" not in operators(back)


def test_what_the_cpu_cannot_run_is_said_and_proven_in_the_evaluator() -> None:
    report = fold(model_of(norm("x", "y"), half=True), target="ort-cuda").report
    verification = report.verification
    assert verification.verdict == "pass"
    assert verification.algebra["proven"] == 1
    assert {entry["provider"] for entry in verification.rounding} == {"evaluator"}
    assert any("NF204" in line and "com.microsoft.GroupNorm" in line for line in verification.messages)


@pytest.mark.parametrize(
    ("shape", "groups", "reason"), [((2, 12, 6), 3, "rank 4"), ((2, 12, 4, 5), 12, "even number of channels")]
)
def test_where_it_is_not_valid_the_next_form_is_taken(
    shape: tuple[int, ...], groups: int, reason: str
) -> None:
    model = model_of(norm("x", "y"), half=True)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(shape)
    model.graph.node(0).attributes["num_groups"] = ir.AttrInt64("num_groups", groups)
    result = fold_model(model, FoldOptions(target="ort-cuda"))
    site = next(s for s in result.sites if s.action == "substituted")
    assert (site.rule, site.code) == ("instancenorm-bn", "NF403")
    assert reason in (site.reason or "")


@pytest.mark.parametrize(("channels", "rule"), [(512, "ms-groupnorm"), (514, "instancenorm-bn")])
def test_a_group_fits_into_a_block_of_the_cuda_kernel(channels: int, rule: str) -> None:
    """All channels in one group, as PoolFormer has them: the kernel refuses more only when it runs."""
    parameters = np.random.default_rng(0).uniform(0.5, 2.0, (2, channels)).astype(np.float16)
    tensors = [onnx.numpy_helper.from_array(a, n) for a, n in zip(parameters, ("gamma", "beta"), strict=True)]
    ends = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, (2, channels, 3, 2)) for name in "xy"]
    node = oh.make_node("GroupNormalization", ["x", "gamma", "beta"], ["y"], num_groups=1)
    graph = oh.make_graph([node], "g", ends[:1], ends[1:], tensors)
    model = ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10))
    (site,) = fold_model(model, FoldOptions(target="ort-cuda")).sites
    assert (site.action, site.rule) == ("substituted", rule)
    assert rule == "ms-groupnorm" or "at most 512 channels per group" in (site.reason or "")


KERAS = [
    oh.make_node("Reshape", ["x", "pieces"], ["r"]),
    oh.make_node("ReduceMean", ["r", "axes"], ["mean"]),
    oh.make_node("Sub", ["r", "mean"], ["c"]),
    oh.make_node("Mul", ["c", "c"], ["squares"]),
    oh.make_node("ReduceMean", ["squares", "axes"], ["variance"]),
    oh.make_node("Add", ["variance", "epsilon"], ["radicand"]),
    oh.make_node("Sqrt", ["radicand"], ["deviation"]),
    oh.make_node("Div", ["c", "deviation"], ["n"]),
    oh.make_node("Reshape", ["n", "sizes"], ["u"]),
    oh.make_node("Mul", ["u", "gamma"], ["m"]),
    oh.make_node("Add", ["m", "beta"], ["y"]),
]


@pytest.mark.parametrize("form", ["instancenorm-bn", "instancenorm", "layernorm", "native", "ms-groupnorm"])
def test_channels_last(form: str) -> None:
    """As Keras writes it: [N, H, W, C], the channels split in place."""
    model = ir.to_proto(model_of(*KERAS))
    sizes = (SHAPE[0], *SHAPE[2:], SHAPE[1])
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(oh.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, sizes))
    tensors = {
        "pieces": np.array([*sizes[:3], GROUPS, 4]),
        "axes": np.array([1, 2, 4]),
        "epsilon": np.array(1e-5, np.float32),
        "sizes": np.array(sizes),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in tensors.items())
    result = fold_model(ir.from_proto(model), FoldOptions(groupnorm=form))
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert operators(result).count("Transpose") == (0 if form == "ms-groupnorm" else 2)
    x = RNG.standard_normal(sizes)
    expected = torch_norm(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    # 1 − ε of the BatchNormalization is rounded to float32.
    np.testing.assert_allclose(Evaluator(result.model).run({"x": x})["y"], expected, rtol=0, atol=1e-6)
    assert not fold_model(result.model, FoldOptions(groupnorm=form)).changed
