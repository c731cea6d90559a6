"""Whole verifications: verdicts, messages, and what each provider did."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import normfold.verification.endtoend.sweep as sweep_module
import normfold.verification.verify as verify_module
from normfold.commands.verify import verify as verify_files
from normfold.errors import InputError
from normfold.reporting.report import Verification
from normfold.runtime.client import Runtime
from normfold.verification import VerifyOptions, verify_fold, verify_models
from tests.verification.conftest import ConvBatchNorm, Pair, model_of, no_refold

pytest.importorskip("onnxruntime")


def verify(pair: Pair, options: VerifyOptions | None = None) -> Verification:
    return verify_fold(
        pair.original,
        pair.folded,
        pair.original,
        pair.folded,
        pair.exact,
        pair.sites,
        no_refold,
        options,
    )


def codes(verification: Verification) -> list[str]:
    return [message.split(":")[0] for message in verification.messages]


def test_right_fold_passes_and_its_report_is_json() -> None:
    found = verify(ConvBatchNorm().pair())
    assert found.verdict == "pass" and found.messages == []
    assert [(p["model"], p["optimizations"], p["status"]) for p in found.providers] == [
        ("original", "off", "ok"),
        ("folded", "off", "ok"),
        ("original", "on", "ok"),
        ("folded", "on", "ok"),
    ]
    assert {r["bound_from"] for r in found.rounding} == {"float64"}
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_models_from_files(tmp_path: Path) -> None:
    pair = ConvBatchNorm().pair()
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    ir.save(pair.original, paths[0])
    ir.save(pair.folded, paths[1])
    assert verify_models(*paths).verdict == "pass"


PLANTED = {
    "epsilon": lambda case: case.folded_constants(epsilon=1e-3),
    "half": lambda case: tuple(a.astype(np.float16).astype(float) for a in case.folded_constants()),
    "bias": lambda case: (case.folded_constants()[0], 0 * case.folded_constants()[1]),
    "swap": lambda case: (case.folded_constants()[0][[1, 0, *range(2, 512)]], case.folded_constants()[1]),
    "sign": lambda case: (
        case.folded_constants()[0] * np.where(np.arange(512) == 77, -1, 1)[:, None, None, None],
        case.folded_constants()[1],
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_planted_error_fails_end_to_end_without_any_proof(error: str) -> None:
    case = ConvBatchNorm(512, seed=3)
    weight, bias = PLANTED[error](case)
    found = verify_models(case.original(), case.folded(weight, bias))
    assert found.verdict == "fail" and set(codes(found)) == {"NF203", "NF217"}


BORDER = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4, 9, 9] x) => (float[1, 6, N, M] y) {{ {body} }}"""


@pytest.mark.parametrize(("pads", "verdict"), [("0, 0, 0, 0", "pass"), ("1, 1, 1, 1", "fail")])
def test_shift_folded_over_a_zero_padded_border_fails_end_to_end(pads: str, verdict: str) -> None:
    case = ConvBatchNorm()
    names = ("gamma", "beta", "mean", "variance")
    stats = {name: getattr(case, name)[:4] for name in names}
    scale = stats["gamma"].astype(float) / np.sqrt(stats["variance"] + np.float64(np.float32(1e-5)))
    shift = stats["beta"] - stats["mean"] * scale
    before = model_of(
        BORDER.format(
            body="b = BatchNormalization<epsilon = 1e-5>(x, gamma, beta, mean, variance) "
            f"y = Conv<pads = [{pads}]>(b, w)"
        ),
        {**stats, "w": case.weight},
    )
    weight, bias = case.weight * scale[:, None, None], (case.weight * shift[:, None, None]).sum((1, 2, 3))
    after = model_of(
        BORDER.format(body=f"y = Conv<pads = [{pads}]>(x, w2, b2)"),
        {"w2": weight.astype(np.float32), "b2": bias.astype(np.float32)},
    )
    found = verify_models(before, after)
    assert found.verdict == verdict
    assert codes(found) == ([] if verdict == "pass" else ["NF203", "NF203", "NF217"])


def test_training_mode_fails_end_to_end() -> None:
    case = ConvBatchNorm()
    original = case.original()
    (node,) = (node for node in original.graph if node.op_type == "BatchNormalization")
    node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    node.resize_outputs(3)
    node.outputs[1].name, node.outputs[2].name = "running_mean", "running_variance"
    found = verify_models(original, case.folded(*case.folded_constants()))
    assert found.verdict == "fail" and "NF203" in codes(found)


def test_right_fold_of_512_channels_passes_end_to_end() -> None:
    case = ConvBatchNorm(512, seed=3)
    assert verify_models(case.original(), case.folded(*case.folded_constants())).verdict == "pass"


def test_nan_in_one_element_fails() -> None:
    case = ConvBatchNorm()
    weight, bias = case.folded_constants()
    bias[2] = np.nan
    assert codes(verify_models(case.original(), case.folded(weight, bias)))[0] == "NF203"


def test_failing_proof_names_value_and_region() -> None:
    found = verify(ConvBatchNorm(tail="Relu").pair(epsilon=1e-3))
    assert found.verdict == "fail"
    assert found.messages[0].startswith("NF201: 'b' in the region of 'b': values differ by ")


def test_unproven_site_is_inconclusive_even_where_outputs_agree() -> None:
    case = ConvBatchNorm()
    case.gamma[:] = 0
    found = verify(case.pair(epsilon=1e-3))
    assert found.verdict == "inconclusive" and codes(found) == ["NF202"]


def test_proof_out_of_time_is_inconclusive_and_names_what_is_left() -> None:
    found = verify(ConvBatchNorm().pair(), VerifyOptions(proof_seconds=1e-9))
    assert found.verdict == "inconclusive"
    assert found.messages == ["NF219: the time limit of 1e-09 s was reached, not proven (1): 'y'"]


@pytest.mark.parametrize("change", ["rename", "type", "shape", "extra"])
def test_other_signature_fails(change: str) -> None:
    pair = ConvBatchNorm(sizes="1, {inputs}, 9, 9").pair()
    output = pair.folded.graph.outputs[0]
    if change == "rename":
        output.name = "z"
    elif change == "type":
        output.type = ir.TensorType(ir.DataType.DOUBLE)
    elif change == "shape":
        output.shape = ir.Shape([1, 6, 9])
    else:
        pair.folded.graph.outputs.append(pair.folded.graph.inputs[0])
    found = verify_models(pair.original, pair.folded)
    assert found.verdict == "fail" and set(codes(found)) == {"NF207"}


def test_unregistered_provider_is_inconclusive_and_says_why() -> None:
    found = verify(ConvBatchNorm().pair(), VerifyOptions(providers=("cpu", "cuda")))
    assert found.verdict == "inconclusive"
    assert found.messages == [
        "NF204: cuda was not exercised: CUDAExecutionProvider is not registered in this build of onnxruntime"
    ]
    assert {r["provider"] for r in found.rounding} == {"cpu"}


DOUBLE = """<ir_version: 8, opset_import: ["" : 17]>
g (double[1, 4, 5, 5] x) => (double[1, 6, 5, 5] y) {{ {body} }}"""


def double_pair() -> Pair:
    case = ConvBatchNorm(kernel=1)
    names = ("gamma", "beta", "mean", "variance")
    original = model_of(
        DOUBLE.format(
            body="c = Conv(x, w)\ny = BatchNormalization<epsilon = 1e-5>(c, gamma, beta, mean, variance)"
        ),
        {"w": case.weight.astype(float), **{name: getattr(case, name).astype(float) for name in names}},
    )
    pair = case.pair()
    weight, bias = case.folded_constants()
    pair.original = original
    pair.folded = model_of(
        DOUBLE.format(body="y = Conv(x, w_folded, b_folded)"), {"w_folded": weight, "b_folded": bias}
    )
    return pair


def test_provider_that_cannot_run_the_original_is_not_run() -> None:
    """onnxruntime's CPU provider has no Conv in float64; the proof is complete without it."""
    found = verify(double_pair())
    assert found.verdict == "pass" and codes(found) == ["NF204"]
    assert {r["provider"] for r in found.rounding} == {"evaluator"}


def test_provider_that_cannot_run_the_original_is_inconclusive_when_named() -> None:
    assert verify(double_pair(), VerifyOptions(providers=("cpu",))).verdict == "inconclusive"


def test_without_onnxruntime_the_evaluator_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "onnxruntime_installed", lambda: False)
    case = ConvBatchNorm()
    found = verify(case.pair())
    assert found.verdict == "pass" and codes(found) == ["NF216"]
    wrong = verify_models(case.original(), case.folded(*case.folded_constants(epsilon=1e-3)))
    assert wrong.verdict == "fail"
    named = verify(case.pair(), VerifyOptions(providers=("cpu",)))
    assert named.verdict == "inconclusive" and "NF204" in codes(named)


def test_over_budget_the_bound_comes_from_noise() -> None:
    case = ConvBatchNorm()
    tight = VerifyOptions(budget_bytes=64)
    found = verify(case.pair(), tight)
    assert found.verdict == "pass" and codes(found) == ["NF209"]
    assert {r["bound_from"] for r in found.rounding} == {"noise"}
    wrong = case.folded(*case.folded_constants(epsilon=1e-3))
    assert verify_models(case.original(), wrong, tight).verdict == "fail"


def test_model_without_accepted_input_is_inconclusive() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, M] x) => (float[K] y) { y = Reshape(x, s) }"""
    model = model_of(text, {"s": np.array([100003])})
    found = verify_models(model, model.clone())
    assert found.verdict == "inconclusive" and codes(found) == ["NF208"]
    given = VerifyOptions(shapes={"x": (1, 100003)})
    assert verify_models(model, model.clone(), given).verdict == "pass"


def test_nonfinite_original_fails_unless_allowed() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3] x) => (float[2, 3] y) { y = Div(x, z) }"""
    model = model_of(text, {"z": np.array([1, 1, 0], np.float32)})
    found = verify_models(model, model.clone())
    assert found.verdict == "fail" and codes(found) == ["NF206"]
    assert verify_models(model, model.clone(), VerifyOptions(allow_nonfinite=True)).verdict == "pass"


def test_random_model_is_inconclusive() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3] x) => (float[2, 3] y) { r = RandomNormalLike(x) y = Add(x, r) }"""
    model = model_of(text, {})
    found = verify_models(model, model.clone())
    assert found.verdict == "inconclusive" and codes(found) == ["NF213"]


def test_folded_model_that_does_not_load_fails() -> None:
    case = ConvBatchNorm()
    broken = case.folded(*case.folded_constants())
    broken.graph.node(0).op_type = "NoSuchOperator"
    found = verify_models(case.original(), broken)
    assert found.verdict == "fail" and set(codes(found)) == {"NF212"}


def test_own_tolerance_is_applied_on_top() -> None:
    case = ConvBatchNorm(64)
    pair = case.original(), case.folded(*case.folded_constants())
    assert set(codes(verify_models(*pair, VerifyOptions(atol=0.0, rtol=1e-9)))) == {"NF214"}
    assert verify_models(*pair, VerifyOptions(atol=1e-4)).verdict == "pass"


def test_real_data_is_used_and_recorded() -> None:
    case = ConvBatchNorm()
    data = {"x": np.random.default_rng(0).standard_normal((5, 4, 9, 9)).astype(np.float32)}
    found = verify(case.pair(), VerifyOptions(data=data))
    assert found.verdict == "pass"
    assert found.inputs == {"source": "data", "runs": 5, "shapes": {"x": [1, 4, 9, 9]}}
    with pytest.raises(InputError, match="no array named 'x'"):
        verify(case.pair(), VerifyOptions(data={"z": data["x"]}))


def test_unreadable_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\xff\xff garbage")
    with pytest.raises(InputError, match=r"a\.onnx"):
        verify_models(tmp_path / "a.onnx", tmp_path / "a.onnx")


def test_crash_of_the_runtime_is_inconclusive() -> None:
    """onnxruntime 1.31 dies on training BatchNormalization with unnamed extra outputs."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) {
        y, m, v = BatchNormalization<training_mode = 1>(x, s, b, mean, var)
    }"""
    one = np.ones(3, np.float32)
    model = model_of(text, {"s": one, "b": one, "mean": one, "var": one})
    for output in list(model.graph.node(0).outputs)[1:]:
        output.name = ""
    found = verify_models(model, model.clone())
    assert found.verdict in ("inconclusive", "pass")
    if found.verdict == "inconclusive":
        assert "NF205" in codes(found)


@pytest.mark.parametrize("models", [1, 2])
def test_child_that_dies_is_a_sentence_and_inconclusive(
    models: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Dies whenever it is to run the original, or only on the folded model."""
    victims: list[int] = []
    opened, ran = Runtime.open, Runtime.run

    def open_(self: Runtime, model: Path, *args: object, **others: object) -> object:
        session = opened(self, model, *args, **others)  # type: ignore[arg-type]
        if model.name == ("a.onnx", "b.onnx")[models - 1]:
            victims.append(session.number)
        return session

    def run(self: Runtime, session: object, *args: object) -> object:
        if session.number in victims:  # type: ignore[attr-defined]
            assert self._process is not None
            self._process.kill()
        return ran(self, session, *args)  # type: ignore[arg-type]

    case = ConvBatchNorm()
    ir.save(case.original(), tmp_path / "a.onnx")
    ir.save(case.folded(*case.folded_constants()), tmp_path / "b.onnx")
    monkeypatch.setattr(Runtime, "open", open_)
    monkeypatch.setattr(Runtime, "run", run)
    report = verify_files(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert report.exit == 3
    assert report.verification.messages[0].startswith("NF205: cpu")
    assert "the process ended with signal 9" in report.verification.messages[0]


def test_unregistered_provider_exits_3_from_files(tmp_path: Path) -> None:
    case = ConvBatchNorm()
    ir.save(case.original(), tmp_path / "a.onnx")
    ir.save(case.folded(*case.folded_constants()), tmp_path / "b.onnx")
    report = verify_files(tmp_path / "a.onnx", tmp_path / "b.onnx", providers=["cuda"])
    assert report.exit == 3 and "CUDAExecutionProvider is not registered" in report.verification.messages[0]


def test_tf32_stands_beside_the_strict_run_and_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no TF32 on a CPU: the second run is the first one with other options."""
    monkeypatch.setattr(sweep_module, "relaxed_options", lambda provider: {})
    case = ConvBatchNorm()
    found = verify_models(case.original(), case.folded(*case.folded_constants()))
    assert found.verdict == "pass"
    beside = [entry for entry in found.providers if "tf32" in entry]
    assert [entry["model"] for entry in beside] == ["original", "folded"]
    assert all(0 < entry["tf32"]["y"] < 1e-4 for entry in beside)


TYPES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x, int64[N] i, bool[N] b, string[N] s, uint8[N, 4] u)
=> (float[N, 4] y, string[N] t, bool[N] c) {{
    m = MatMul(x, w)
    g = Gather(table, i)
    v = Cast<to = 1>(u)
    a = Add(m, g)
    d = Add(a, v)
    k = Unsqueeze(b, axes)
    y = Where(k, d, {other})
    t = Identity(s)
    c = Not(b)
}}"""


def typed(error: float = 0.0, other: str = "a") -> ir.Model:
    rng = np.random.default_rng(0)
    weight, table = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 4), (3, 4)))
    constants = {"w": weight * np.float32(1 + error), "table": table, "axes": np.array([1])}
    return model_of(TYPES.format(other=other), constants)


def test_inputs_of_every_type_run_in_onnxruntime_and_the_evaluator() -> None:
    found = verify_models(typed(), typed())
    assert found.verdict == "pass" and found.messages == []
    assert {r["bound_from"] for r in found.rounding} == {"float64"}
    assert verify_models(typed(), typed(error=1e-4)).verdict == "fail"
    assert verify_models(typed(), typed(other="m")).verdict == "fail"


def test_real_data_of_every_type(tmp_path: Path) -> None:
    arrays = {
        "x": np.random.default_rng(1).standard_normal((10, 4)).astype(np.float32),
        "i": np.arange(10) % 3,
        "b": np.arange(10) % 2 == 0,
        "s": np.array(list("abcdefghij")),
        "u": np.full((10, 4), 200, np.uint8),
    }
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    found = verify_models(typed(), typed(), VerifyOptions(data=tmp_path / "d.npz"))
    assert found.verdict == "pass" and found.inputs["runs"] == 2
    arrays["i"] = arrays["i"] + 100
    with pytest.raises(InputError, match=r"does not run on the given data: .*out of"):
        verify_models(typed(), typed(), VerifyOptions(data=arrays))


RANDOM = {
    "operator": "r = RandomNormalLike(x) y = Add(x, r)",
    "dropout": "t = Constant<value = bool {1}>() y = Dropout(x, , t)",
    "function": "y = l.f(x)",
    "branch": "c = Constant<value = bool {1}>() y = If(c) <then_branch = a () => (float[2, 3] z)"
    " { z = RandomUniformLike(x) }, else_branch = b () => (float[2, 3] w) { w = Neg(x) }>",
}


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("first", [True, False])
def test_random_models_are_refused_with_a_code(kind: str, first: bool) -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[2, 3] x) => (float[2, 3] y)'
    function = '<domain: "l", opset_import: ["" : 17]> f (x) => (y) { r = RandomNormalLike(x) y = Add(x, r) }'
    random, plain = (
        model_of(f"{header} {{ {body} }} {function}", {}) for body in (RANDOM[kind], "y = Neg(x)")
    )
    found = verify_models(*((random, plain) if first else (plain, random)))
    assert found.verdict == "inconclusive" and codes(found) == ["NF213"]
    assert ("the original is random" if first else "the other model is random") in found.messages[0]


def test_dropout_in_evaluation_mode_is_not_random() -> None:
    header = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => (float[2, 3] y)'
    dropout, identity = (
        model_of(f"{header} {{ {body} }}", {}) for body in ("y = Dropout(x)", "y = Identity(x)")
    )
    assert verify_models(dropout, identity).verdict == "pass"


def test_missing_output_fails() -> None:
    two = model_of(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y, float[2] z)'
        " { y = Neg(x) z = Abs(x) }",
        {},
    )
    one = two.clone()
    one.graph.outputs.pop()
    found = verify_models(two, one)
    assert found.verdict == "fail" and found.messages[0] == "NF207: output 'z' is missing"


def test_output_of_another_shape_at_run_time_fails() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => (float[N, M] y) {{ y = {op}(x) }}'
    found = verify_models(model_of(text.format(op="Neg"), {}), model_of(text.format(op="Transpose"), {}))
    assert found.verdict == "fail" and found.messages[0].endswith("shape [3, 2] for [2, 3]")


def behind_transpose(spelling: str) -> ir.Model:
    """A MatMul whose rows, after a Transpose, are scaled and shifted: as many rows as columns."""
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(0.5, 2.0, 4).astype(np.float32) for name in "sbmv"}
    scale = constants["s"] / np.sqrt(constants["v"] + np.float32(1e-5))
    shift = constants["b"] - constants["m"] * scale
    bodies = {
        "batchnorm": ("y = BatchNormalization(t, s, b, m, v)", constants),
        "affine": ("k = Mul(t, scale) y = Add(k, shift)", {"scale": scale, "shift": shift}),
    }
    body, used = bodies[spelling]
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[4, 6] x) => (float[4, 4] y) {{
        a = MatMul(x, w) t = Transpose<perm = [1, 0]>(a) {body} }}"""
    return model_of(text, {"w": rng.standard_normal((6, 4)).astype(np.float32), **used})


def test_original_that_the_runtime_changes_is_a_warning() -> None:
    """onnxruntime 1.31 fuses MatMul and BatchNormalization through a Transpose, on the wrong axis."""
    found = verify_models(behind_transpose("batchnorm"), behind_transpose("affine"))
    assert found.verdict == "pass" and codes(found) == ["NF210"]
    assert found.messages[0].startswith("NF210: cpu changes output 'y' of the original: error ")


def test_folded_model_that_the_runtime_changes_fails() -> None:
    found = verify_models(behind_transpose("affine"), behind_transpose("batchnorm"))
    assert found.verdict == "fail" and codes(found)[0] == "NF215"
    assert found.messages[-1].startswith("NF217: ")
