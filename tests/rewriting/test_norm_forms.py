"""Every form of GroupNorm computes what torch does, is found again, and is a fixpoint."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from models.single_norms import groupnorm
from normfold import fold
from normfold.errors import InputError
from normfold.evaluation import Evaluator
from normfold.folding import Folded, fold_model
from normfold.options import FoldOptions
from normfold.planning.norm_forms import FORMS
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm, find_norms
from tests.checker import Checker

SHAPE = (2, 12, 4, 5)
CORES = {
    "instancenorm": "InstanceNormalization",
    "instancenorm-bn": "InstanceNormalization",
    "layernorm": "LayerNormalization",
    "native": "GroupNormalization",
    "primitive": "ReduceMean",
    "ms-groupnorm": "GroupNorm",
}


def model_of(kind: str, shape: tuple[int, ...] = SHAPE, groups: int = 3) -> onnx.ModelProto:
    return groupnorm(kind, shape, groups)


def folded(model: onnx.ModelProto, **options: str) -> Folded:
    return fold_model(ir.from_proto(model), FoldOptions(**options))


def operators(result: Folded) -> list[str]:
    return [node.op_type for node in result.model.graph]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    if any(node.domain == "com.microsoft" for node in model.graph.node):
        # onnxruntime's CPU provider has no kernel of com.microsoft.GroupNorm.
        return np.asarray(Evaluator(ir.from_proto(model)).run({"x": x})["y"])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def reference(model: onnx.ModelProto, x: np.ndarray, groups: int) -> np.ndarray:
    arrays = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in model.graph.initializer}
    gamma = arrays.get("gamma", arrays.get("g"))
    beta = arrays.get("beta", arrays.get("b"))
    assert gamma is not None and beta is not None
    epsilon = float(np.float32(1e-5))
    wide = torch.tensor(x).double()
    return torch.nn.functional.group_norm(wide, groups, gamma.flatten(), beta.flatten(), epsilon).numpy()


@pytest.mark.parametrize(
    ("kind", "form", "groups"),
    [
        case
        for case in itertools.product(("native", "exported", "handwritten"), FORMS, (1, 3, 12))
        if case[1:] != ("ms-groupnorm", 12)  # one channel per group, which it does not take
    ],
)
def test_a_form_equals_torch(kind: str, form: str, groups: int) -> None:
    model = model_of(kind, groups=groups)
    result = folded(model, groupnorm=form)
    assert CORES[form] in operators(result)
    proto = ir.to_proto(result.model)
    onnx.checker.check_model(proto)
    x = np.random.default_rng(groups).standard_normal(SHAPE).astype(np.float32)
    expected = reference(model, x, groups)
    # An epsilon of 2e-5 for 1e-5 would be off by 5e-6 of the output.
    np.testing.assert_allclose(run(proto, x), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "form"), list(itertools.product(("native", "handwritten"), FORMS)))
def test_a_form_is_found_again_and_stays(kind: str, form: str) -> None:
    result = folded(model_of(kind), groupnorm=form)
    found = [n for n in find_norms(Workspace(result.model.clone())) if isinstance(n, Norm)]
    assert [(n.kind, n.groups, n.y.name) for n in found] == [("groupnorm", 3, "y")]
    again = fold_model(result.model, FoldOptions(groupnorm=form))
    assert not again.changed, again.sites


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda", "tensorrt", "openvino", "portable"])
@pytest.mark.parametrize("kind", ["native", "exported", "handwritten"])
def test_a_target_is_a_fixpoint(kind: str, target: str) -> None:
    result = folded(model_of(kind), target=target)
    assert not fold_model(result.model, FoldOptions(target=target)).changed


def test_the_default_on_the_cpu() -> None:
    result = folded(model_of("native"), target="ort-cpu")
    assert operators(result) == ["Reshape", "InstanceNormalization", "Reshape", "BatchNormalization"]
    assert [(s.site, s.kind, s.action, s.rule) for s in result.sites] == [
        ("y", "groupnorm", "substituted", "instancenorm-bn")
    ]


def test_openvino_looks_for_mul_and_add() -> None:
    result = folded(model_of("handwritten"), target="openvino")
    assert operators(result) == ["Reshape", "InstanceNormalization", "Reshape", "Mul", "Add"]


def test_what_the_target_runs_well_stays() -> None:
    result = folded(folded_proto("layernorm"), target="ort-cpu")
    assert not result.changed


def folded_proto(form: str) -> onnx.ModelProto:
    proto: onnx.ModelProto = ir.to_proto(folded(model_of("native"), groupnorm=form).model)
    return proto


@pytest.mark.parametrize("options", [{}, {"target": "ort-cpu", "groupnorm": "keep"}])
def test_unasked_nothing_is_substituted(options: dict[str, str]) -> None:
    assert not folded(model_of("native"), **options).changed


def test_a_kept_value_stays() -> None:
    result = fold_model(
        ir.from_proto(model_of("native")), FoldOptions(keep=frozenset({"y"}), target="ort-cpu")
    )
    assert not result.changed


def test_open_sizes() -> None:
    model = model_of("native")
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    result = folded(model, target="ort-cpu")
    assert operators(result).count("Shape") == 1
    for shape in (SHAPE, (1, 12, 7, 3)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        expected = reference(model, x, 3)
        actual = run(ir.to_proto(result.model), x)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(2, 12), (2, 12, 9), (2, 12, 2, 3, 4)])
def test_other_ranks(shape: tuple[int, ...]) -> None:
    model = model_of("native", shape)
    result = folded(model, target="ort-cpu")
    assert "InstanceNormalization" in operators(result)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = reference(model, x, 3)
    actual = run(ir.to_proto(result.model), x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["native", "layernorm"])
def test_statistics_of_float64_are_float64(check: Checker, form: str) -> None:
    """Unless told so, both operators compute them in float32."""
    model = check.model(
        """g (double[2, 12, 4, 5] x) => (double[2, 12, 4, 5] y) {
            rows = Constant <value = int64[3] {0, 3, -1}> ()
            eps = Constant <value = double {0.0009765625}> ()
            two = Constant <value = double {2.0}> ()
            back = Shape (x)
            r = Reshape (x, rows) mu = ReduceMean <axes = [2]> (r) c = Sub (r, mu) sq = Pow (c, two)
            v = ReduceMean <axes = [2]> (sq) ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd)
            y = Reshape (n, back)
        }""",
        opset=17,
    )
    result = folded(model, groupnorm=form)
    assert CORES[form] in operators(result)
    x = np.random.default_rng(1).standard_normal(SHAPE) + 30
    expected = torch.nn.functional.group_norm(torch.tensor(x), 3, eps=2.0**-10).numpy()
    np.testing.assert_allclose(run(ir.to_proto(result.model), x), expected, rtol=0, atol=1e-12)


def test_a_substitution_is_proven() -> None:
    result = fold(model_of("native"))
    assert result.changed
    assert result.report.summary["target"] == "ort-cpu"
    verification = result.report.verification
    assert verification.verdict == "pass"
    assert verification.algebra["proven"] == verification.algebra["sites"] == 1


def test_the_affine_goes_on_into_a_conv() -> None:
    model = model_of("native")
    weight = np.random.default_rng(0).standard_normal((4, 12, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.graph.node.append(onnx.helper.make_node("Conv", ["y", "w"], ["z"]))
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, (2, 4, 4, 5))
    )
    result = fold(model)
    assert [node.op_type for node in result.model.graph] == [
        "Reshape",
        "InstanceNormalization",
        "Reshape",
        "Conv",
    ]
    assert result.report.verification.verdict == "pass"


@pytest.mark.parametrize("options", [{"target": "toaster"}, {"groupnorm": "bessel"}])
def test_an_unknown_name_is_an_input_error(options: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"toaster|bessel") as caught:
        fold(model_of("native"), **options)  # type: ignore[arg-type]
    assert caught.value.code == "NF900"


@pytest.mark.parametrize(("provider", "target"), [("cpu", "ort-cpu"), ("CUDAExecutionProvider", "ort-cuda")])
def test_the_first_provider_is_the_target(provider: str, target: str) -> None:
    from normfold.planning.targets import target_of

    assert target_of(provider) == target


def test_the_epsilon_of_an_unbiased_variance_is_proven_before_its_rounding() -> None:
    """``ε·(K−1)/K`` is no float32; on inputs of small variance the proof sees the difference."""
    model = model_of("handwritten")
    scale = next(node for node in model.graph.node if node.output[0] == "ve")
    scale.input[0] = "unbiased"
    count = 12 // 3 * 20
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(count, np.float32), "count"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(count - 1, np.float32), "less"))
    place = list(model.graph.node).index(scale)
    model.graph.node.insert(place, onnx.helper.make_node("Mul", ["var", "count"], ["sum"]))
    model.graph.node.insert(place + 1, onnx.helper.make_node("Div", ["sum", "less"], ["unbiased"]))
    result = fold(model)
    assert [(s.action, s.rule) for s in result.report.sites] == [("substituted", "instancenorm-bn")]
    assert result.report.verification.verdict == "pass"


@pytest.mark.parametrize("form", [form for form in FORMS if form != "primitive"])
def test_an_open_unbiased_variance_has_no_other_form(check: Checker, form: str) -> None:
    model = check.model(
        """g (float[N, 12, H, W] x) => (float[N, 12, H, W] y) {
            s = Shape (x) r = Reshape (x, rows) mu = ReduceMean (r, last) c = Sub (r, mu) sq = Mul (c, c)
            sum = ReduceSum (sq, last) rs = Shape <start=2> (r) k = Cast <to=1> (rs) less = Sub (k, one)
            v = Div (sum, less) ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) y = Reshape (n, s)
        }""",
        {
            "rows": np.array([0, 3, -1]),
            "last": np.array([2]),
            "one": np.array(1, np.float32),
            "eps": np.array(1e-3, np.float32),
        },
    )
    result = folded(model, groupnorm=form, target="portable")
    assert not result.changed
    site = next(site for site in result.sites if site.kind == "groupnorm")
    assert (site.action, site.code) == ("kept", "NF403")
    assert f"{form}: its variance divides by K - 1, and K is not static" in (site.reason or "")


def test_nothing_is_put_inside_of_a_norm(check: Checker) -> None:
    """On its rows the first scale would be a vector and not a map, but the chain would be none any more."""
    rng = np.random.default_rng(0)
    constants = {
        "k": rng.uniform(0.5, 2, (2, 2)).astype(np.float32),
        "rows": np.array([0, 1, -1]),
        "one": np.ones(1, np.float32),
        "zero": np.zeros(1, np.float32),
        "back": np.array([4, 4, 2, 2]),
        "gamma": rng.uniform(0.5, 2, (4, 1, 1)).astype(np.float32),
        "beta": rng.standard_normal((4, 1, 1)).astype(np.float32),
    }
    model = check.model(
        """g (float[4, 4, 2, 2] x) => (float[4, 4, 2, 2] y) {
            a = Mul (x, k) r = Reshape (a, rows) n = InstanceNormalization (r, one, zero)
            q = Reshape (n, back) g = Mul (q, gamma) y = Add (g, beta)
        }""",
        constants,
    )
    outcome = check(model, FoldOptions(target="portable"))
    assert not outcome.folded.changed


def test_sizes_that_only_the_replaced_reshapes_told_stay_known(check: Checker) -> None:
    rng = np.random.default_rng(0)
    constants = {
        "rows": np.array([0, 2, -1]),
        "axis": np.array([2]),
        "two": np.array(2.0, np.float32),
        "eps": np.array(1e-3, np.float32),
        "back": np.array([1, 4, 3, 5]),
        "gamma": rng.uniform(0.5, 2, (4, 1, 1)).astype(np.float32),
        "beta": rng.standard_normal((4, 1, 1)).astype(np.float32),
    }
    model = check.model(
        """g (float[1, 4, H, 5] x) => (float[1, 4, A, B] y) {
            r = Reshape (x, rows) mu = ReduceMean (r, axis) c = Sub (r, mu) sq = Pow (c, two)
            v = ReduceMean (sq, axis) e = Add (v, eps) d = Sqrt (e) q = Div (c, d)
            n = Reshape (q, back) t = Mul (n, gamma) z = Add (t, beta) y = Sigmoid (z)
        }""",
        constants,
    )
    result = folded(model, target="ort-cpu")
    assert [site.action for site in result.sites] == ["substituted"]
    workspace = Workspace(result.model)
    z = next(node.outputs[0] for node in result.model.graph if node.outputs[0].name == "z")
    assert workspace.dims(z) == (1, 4, 3, 5)
