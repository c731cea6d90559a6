"""Every spelling of a normalisation is read as what torch computes in float64; look-alikes are not."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import LookAlike, Norm, find_norms
from tests.checker import Checker
from tests.interpreter import Interpreter

C, G = 12, 3
# Elements of one group.
K = C // G * 20


def found_in(model: onnx.ModelProto) -> list[Norm | LookAlike]:
    return list(find_norms(Workspace(ir.from_proto(model))))


def parameters(dtype: type = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = {
        "g": rng.standard_normal((C, 1, 1)),
        "b": rng.standard_normal((C, 1, 1)),
        "g3": rng.standard_normal((G, C // G)),
        "b3": rng.standard_normal((G, C // G)),
        "gamma": rng.standard_normal(C),
        "beta": rng.standard_normal(C),
        "ones": np.ones(G),
        "zeros": np.zeros(G),
        "eps": np.array(1e-3),
        "two": np.array(2.0),
        "half": np.array(-0.5),
        "zero": np.array(0.0),
        "nought": np.zeros(C),
        "positive": np.ones(C),
        "count": np.array(K),
        "less": np.array(K - 1),
        "wide": np.ones(K),
    }
    integers = {
        "rows": np.array([0, G, -1]),
        "back": np.array([0, C, 4, 5]),
        "five": np.array([0, G, C // G, 4, 5]),
        "first": np.array([1]),
        "last": np.array([2]),
        "lasts": np.array([2, 3, 4]),
        "behind": np.array([3, 4]),
        "channels": np.array([0, C, 1, 1]),
        "squared": np.array(2),
    }
    return {**{k: v.astype(dtype) for k, v in arrays.items()}, **integers}


def used(body: str) -> dict[str, np.ndarray]:
    words = set(re.findall(r"\w+", body))
    return {name: array for name, array in parameters().items() if name in words}


def norm_of(
    check: Checker, body: str, *, opset: int = 20, shape: str = "[2, 12, 4, 5]", also: str = ""
) -> Norm:
    """The one norm in a model of ``body``, after it was held against torch in float64."""
    values = used(body)
    text = f"g (float{shape} x) => (float{shape} y) {{ {body} }}"
    model = check.model(text, values, opset=opset, also=also)
    (norm,) = found_in(model)
    assert isinstance(norm, Norm), norm
    x = np.random.default_rng(5).standard_normal((2, 12, 4, 5)) * 3 + 1
    actual = Interpreter(model).run({"x": x.astype(np.float32)})["y"]
    x64 = torch.from_numpy(x.astype(np.float32).astype(np.float64))
    expected = torch.nn.functional.group_norm(
        x64, norm.groups, torch.tensor(norm.scale), torch.tensor(norm.shift), norm.epsilon
    ).numpy()
    if norm.activation == "silu":
        expected = expected / (1 + np.exp(-expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    return norm


IMAGE = "g (float[2, 12, 4, 5] x) => (float[2, 12, 4, 5] y) {{ {} }}"
ROWS = "r = Reshape (x, rows)"
FIVE = "r = Reshape (x, five)"
MEAN = "mu = ReduceMean (r, last)"
AFFINE = "u = Reshape (n, back) m = Mul (u, g) y = Add (m, b)"
VARIANCE = "c = Sub (r, mu) sq = Mul (c, c) v = ReduceMean (sq, last)"
DIVIDE = "ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd)"
SPELLINGS = {
    "instancenorm": f"{ROWS} n = InstanceNormalization <epsilon=0.001> (r, ones, zeros) {AFFINE}",
    "layernorm": f"{ROWS} n = LayerNormalization <axis=-1, epsilon=0.001> (r, wide) {AFFINE}",
    "two passes": f"{ROWS} {MEAN} {VARIANCE} {DIVIDE} {AFFINE}",
    "five axes": f"{FIVE} mu = ReduceMean (r, lasts) c = Sub (r, mu) sq = Mul (c, c) v = "
    f"ReduceMean (sq, lasts) "
    f"{DIVIDE} {AFFINE}",
    "Pow": f"{ROWS} {MEAN} c = Sub (r, mu) sq = Pow (c, two) v = ReduceMean (sq, last) {DIVIDE} {AFFINE}",
    "Pow of an integer": f"{ROWS} {MEAN} c = Sub (r, mu) sq = Pow (c, squared) v = ReduceMean (sq, last) "
    f"{DIVIDE} {AFFINE}",
    "Reciprocal": f"{ROWS} {MEAN} {VARIANCE} ve = Add (v, eps) sd = Sqrt (ve) i = "
    f"Reciprocal (sd) n = Mul (c, i) "
    f"{AFFINE}",
    "Pow of a half": f"{ROWS} {MEAN} {VARIANCE} ve = Add (v, eps) i = Pow (ve, half) n = Mul (c, i) {AFFINE}",
    "mean of squares": f"{ROWS} {MEAN} r2 = Mul (r, r) q = ReduceMean (r2, last) m2 = Mul (mu, "
    f"mu) v = Sub (q, m2) "
    f"c = Sub (r, mu) {DIVIDE} {AFFINE}",
    "guarded": f"{ROWS} {MEAN} r2 = Mul (r, r) q = ReduceMean (r2, last) m2 = Mul (mu, "
    f"mu) w = Sub (q, m2) "
    f"v = Relu (w) c = Sub (r, mu) {DIVIDE} {AFFINE}",
    "mean twice": f"{ROWS} {MEAN} {VARIANCE} mu2 = ReduceMean (r, last) c2 = Sub (r, mu2) "
    f"ve = Add (v, eps) "
    f"sd = Sqrt (ve) n = Div (c2, sd) {AFFINE}",
    "sums": f"{ROWS} su = ReduceSum (r, last) mu = Div (su, count) {VARIANCE} {DIVIDE} {AFFINE}",
    "commuted": f"{ROWS} {MEAN} {VARIANCE} ve = Add (eps, v) sd = Sqrt (ve) n = Div (c, "
    f"sd) u = Reshape (n, back) "
    "m = Mul (g, u) y = Add (b, m)",
    "scale and offset": f"{ROWS} {MEAN} {VARIANCE} ve = Add (v, eps) sd = Sqrt (ve) i = Reciprocal (sd) "
    "a = Mul (r, i) d = Mul (mu, i) n = Sub (a, d) u = Reshape (n, back) m = Mul (u, g) y = Add (m, b)",
    "length": f"{ROWS} {MEAN} c = Sub (r, mu) l = ReduceL2 (c, last) sq = Mul (l, l) v = Div (sq, count) "
    f"{DIVIDE} {AFFINE}",
    "sum of squares": f"{ROWS} {MEAN} c = Sub (r, mu) su = ReduceSumSquare (c, last) v = Div (su, count) "
    f"{DIVIDE} {AFFINE}",
    "root of a reciprocal": f"{ROWS} {MEAN} {VARIANCE} ve = Add (v, eps) q = Reciprocal (ve) i = Sqrt (q) "
    f"n = Mul (c, i) {AFFINE}",
    "negated": f"{ROWS} {MEAN} c = Sub (mu, r) sq = Mul (c, c) v = ReduceMean (sq, last) ve = Add (v, eps) "
    f"sd = Sqrt (ve) d = Neg (c) n = Div (d, sd) {AFFINE}",
    "guarded by Max": f"{ROWS} {MEAN} {VARIANCE} w = Max (v, zero) ve = Add (w, eps) sd = Sqrt (ve) "
    f"n = Div (c, sd) {AFFINE}",
    "guarded by Clip": f"{ROWS} {MEAN} {VARIANCE} w = Clip (v, zero) ve = Add (w, eps) sd = Sqrt (ve) "
    f"n = Div (c, sd) {AFFINE}",
    "zeros added": f"{ROWS} {MEAN} {VARIANCE} w = Add (zero, v) {DIVIDE.replace('(v,', '(w,')} {AFFINE}",
    "squeezed": f"{ROWS} {MEAN} {VARIANCE} ve = Add (v, eps) s = Squeeze (ve, last) t = Sqrt (s) "
    f"sd = Unsqueeze (t, last) n = Div (c, sd) {AFFINE}",
    "no affine": f"{ROWS} {MEAN} {VARIANCE} {DIVIDE} y = Reshape (n, back)",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_is_read(check: Checker, spelling: str) -> None:
    norm = norm_of(check, SPELLINGS[spelling])
    assert (norm.kind, norm.groups, norm.channels, norm.channel_axis) == ("groupnorm", G, C, 1)
    assert norm.epsilon == pytest.approx(1e-3, rel=1e-6)
    assert norm.x.name == "x"
    assert norm.y.name == "y"
    assert norm.has_affine == (spelling != "no affine")


@pytest.mark.parametrize(
    "tail",
    [
        "m = Mul (u, zero) y = Add (m, b)",
        "m = Mul (zero, u) y = Add (m, b)",
        "y = BatchNormalization (u, nought, beta, nought, positive)",
    ],
    ids=["Mul", "Mul from the left", "BatchNormalization"],
)
def test_a_scale_of_zero_is_a_scale(check: Checker, tail: str) -> None:
    """However it is spelled: another reading of one spelling would undo a form that was given."""
    norm = norm_of(check, f"{ROWS} n = InstanceNormalization (r, ones, zeros) u = Reshape (n, back) {tail}")
    assert not norm.scale.any()
    np.testing.assert_array_equal(norm.shift, parameters()["beta" if "Batch" in tail else "b"].reshape(-1))


SCALE_ON_THE_RECIPROCAL = (
    "r = Reshape (x, five) mu = ReduceMean <keepdims=0> (r, lasts) m5 = Unsqueeze (mu, lasts) "
    "c = Sub (r, m5) sq = Mul (c, c) v = ReduceMean <keepdims=0> (sq, lasts) ve = Add (v, eps) "
    "sd = Sqrt (ve) i = Reciprocal (sd) i3 = Unsqueeze (i, last) a = Mul (i3, g3) m3 = Unsqueeze (mu, last) "
    "ma = Mul (m3, a) o = Sub (b3, ma) "
)


@pytest.mark.parametrize(
    "rest",
    [
        "a5 = Unsqueeze (a, behind) o5 = Unsqueeze (o, behind) xa = Mul (r, a5) z = Add (xa, o5) "
        "y = Reshape (z, back)",
        "a4 = Reshape (a, channels) o4 = Reshape (o, channels) xa = Mul (x, a4) y = Add (xa, o4)",
    ],
    ids=["on groups", "on channels"],
)
def test_scale_and_shift_of_the_channels_before_x_is_met(check: Checker, rest: str) -> None:
    """``x·(γ/σ) + (β − μ·γ/σ)``: reductions leave no axis that γ could run over."""
    norm = norm_of(check, SCALE_ON_THE_RECIPROCAL + rest)
    assert (norm.kind, norm.groups) == ("groupnorm", G)
    np.testing.assert_allclose(norm.scale, parameters()["g3"].reshape(-1), rtol=1e-7)


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        ("mu = GlobalAveragePool (x) c = Sub (x, mu) sq = Mul (c, c) v = GlobalAveragePool (sq) "
         "ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) m = Mul (n, g) y = Add (m, b)", C),
        ("r = Flatten <axis=1> (x) mu = ReduceMean (r, first) c = Sub (r, mu) sq = Mul (c, c) "
         "v = ReduceMean (sq, first) ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) "
         "u = Reshape (n, back) m = Mul (u, g) y = Add (m, b)", 1),
    ],
    ids=["GlobalAveragePool", "Flatten"],
)  # fmt: skip
def test_all_positions_and_all_elements(check: Checker, body: str, groups: int) -> None:
    assert norm_of(check, body).groups == groups


def test_sizes_may_be_open(check: Checker) -> None:
    body = (
        f"{ROWS} n = InstanceNormalization <epsilon=0.001> (r, ones, zeros) s = Shape (x) "
        "u = Reshape (n, s) m = Mul (u, g) y = Add (m, b)"
    )
    norm = norm_of(check, body, shape="[N, 12, H, W]")
    assert (norm.kind, norm.groups) == ("groupnorm", G)


def test_the_operator_of_opset_21() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N, 12, H, W] x) => (float[N, 12, H, W] y) '
        "{ y = GroupNormalization <num_groups=3, epsilon=0.001> (x, gamma, beta) }"
    )
    values = parameters()
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values[n], n) for n in ("gamma", "beta"))
    (norm,) = found_in(model)
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.groups) == ("groupnorm", 3)
    np.testing.assert_array_equal(norm.scale, values["gamma"].astype(np.float64))


def test_the_operator_of_opset_18_has_a_scale_per_group() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N, 12, H, W] x) => (float[N, 12, H, W] y) '
        "{ y = GroupNormalization <num_groups=3> (x, s, t) }"
    )
    arrays = {"s": np.array([1, 2, 3], np.float32), "t": np.array([0, 5, 6], np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    (norm,) = found_in(model)
    assert isinstance(norm, Norm)
    np.testing.assert_array_equal(norm.scale, np.repeat([1.0, 2.0, 3.0], 4))
    np.testing.assert_array_equal(norm.shift, np.repeat([0.0, 5.0, 6.0], 4))


def test_microsofts_operator_between_transposes() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> '
        "g (float[N, 12, 4, 5] x) => (float[N, 12, 4, 5] y) { t = Transpose <perm=[0, 2, 3, 1]> (x) "
        "n = com.microsoft.GroupNorm <groups=3, epsilon=0.001, activation=1> (t, gamma, beta) "
        "y = Transpose <perm=[0, 3, 1, 2]> (n) }"
    )
    values = parameters()
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values[n], n) for n in ("gamma", "beta"))
    (norm,) = found_in(model)
    assert isinstance(norm, Norm)
    assert (norm.x.name, norm.y.name, norm.channel_axis) == ("x", "y", 1)
    assert (norm.groups, norm.activation) == (3, "silu")


def test_microsofts_operator_on_channels_last() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> '
        "g (float[N, H, W, 12] x) => (float[N, H, W, 12] y) "
        "{ y = com.microsoft.GroupNorm <groups=3, epsilon=0.001, activation=0> (x, gamma, beta) }"
    )
    values = parameters()
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values[n], n) for n in ("gamma", "beta"))
    (norm,) = found_in(model)
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.channel_axis, norm.groups, norm.activation) == ("groupnorm", 3, 3, None)
    np.testing.assert_array_equal(norm.scale, values["gamma"].astype(np.float64))


@pytest.mark.parametrize("back", [True, False])
def test_in_float32_between_casts(check: Checker, back: bool) -> None:
    """A result that stays float32 belongs to a norm of what was widened, not of the float16 value."""
    body = SPELLINGS["no affine"].replace("(x,", "(w,").replace("y =", "z =" if back else "y =")
    text = (
        f"g (float16[2, 12, 4, 5] x) => ({'float16' if back else 'float'}[2, 12, 4, 5] y) "
        f"{{ w = Cast <to=1> (x) {body} {'y = Cast <to=10> (z)' if back else ''} }}"
    )
    (norm,) = found_in(check.model(text, used(body)))
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.x.name, norm.y.name) == ("groupnorm", "x" if back else "w", "y")


def test_the_unbiased_variance_has_its_own_scale_and_epsilon(check: Checker) -> None:
    body = (
        f"{ROWS} {MEAN} c = Sub (r, mu) sq = Mul (c, c) bv = ReduceMean (sq, last) kv = Mul (bv, count) "
        f"v = Div (kv, less) {DIVIDE} y = Reshape (n, back)"
    )
    norm = norm_of(check, body)
    assert norm.epsilon == pytest.approx(float(np.float32(1e-3)) * (K - 1) / K, rel=1e-14)
    np.testing.assert_allclose(norm.scale, np.sqrt((K - 1) / K), rtol=1e-14)


def test_affines_that_follow_belong_to_it(check: Checker) -> None:
    norm = norm_of(check, f"{SPELLINGS['two passes'].replace('y =', 'z =')} w = Mul (z, g) y = Add (w, g)")
    values = parameters()
    scale, shift = (values[n].reshape(-1).astype(np.float64) for n in "gb")
    np.testing.assert_array_equal(norm.scale, scale * scale)
    np.testing.assert_allclose(norm.shift, shift * scale + scale, rtol=1e-15)


def test_silu_belongs_to_it(check: Checker) -> None:
    body = f"{SPELLINGS['two passes'].replace('y =', 'a =')} s = Sigmoid (a) y = Mul (a, s)"
    norm = norm_of(check, body)
    assert norm.activation == "silu"
    assert norm.before_activation is not None
    assert norm.before_activation.y.name == "a"


def test_a_gate_on_another_value_is_no_silu(check: Checker) -> None:
    body = f"{SPELLINGS['two passes'].replace('y =', 'a =')} s = Sigmoid (a) y = Mul (x, s)"
    values = used(body)
    model = check.model(f"g (float[2, 12, 4, 5] x) => (float[2, 12, 4, 5] y) {{ {body} }}", values)
    (norm,) = found_in(model)
    assert isinstance(norm, Norm)
    assert (norm.y.name, norm.activation) == ("a", None)


@pytest.mark.parametrize(
    ("body", "kind", "axes"),
    [
        ("mu = ReduceMean <axes=[2, 3]> (x) c = Sub (x, mu) s = Mul (c, c) v = ReduceMean <axes=[2, 3]> (s) "
         "ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)", "instancenorm", (2, 3)),
        ("mu = ReduceMean <axes=[1]> (x) c = Sub (x, mu) sq = Mul (c, c) v = ReduceMean <axes=[1]> (sq) "
         "ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)", "layernorm", (1,)),
        ("mu = ReduceMean <axes=[2]> (x) c = Sub (x, mu) sq = Mul (c, c) v = ReduceMean <axes=[2]> (sq) "
         "ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)", "layernorm", (2,)),
        ("sq = Mul (x, x) v = ReduceMean <axes=[1]> (sq) ve = Add (v, eps) sd = Sqrt (ve) y = Div (x, sd)",
         "rmsnorm", (1,)),
    ],
    ids=["instancenorm", "layernorm over channels", "layernorm over rows", "rmsnorm"],
)  # fmt: skip
def test_its_relatives_are_told_apart(check: Checker, body: str, kind: str, axes: tuple[int, ...]) -> None:
    text = f"g (float[N, 12, 4, W] x) => (float[N, 12, 4, W] y) {{ {body} }}"
    (norm,) = found_in(check.model(text, {"eps": np.array(1e-3, np.float32)}, opset=13))
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.axes) == (kind, axes)


@pytest.mark.parametrize(("channels", "kind", "axis"), [("12", "instancenorm", 1), ("T", "layernorm", 2)])
def test_over_the_last_axis_of_a_sequence(check: Checker, channels: str, kind: str, axis: int) -> None:
    """Without scale and shift both are the same; an InstanceNorm has a known number of channels."""
    body = (
        "mu = ReduceMean <axes=[2]> (x) c = Sub (x, mu) sq = Mul (c, c) v = ReduceMean <axes=[2]> (sq) "
        "ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)"
    )
    text = f"g (float[N, {channels}, 20] x) => (float[N, {channels}, 20] y) {{ {body} }}"
    (norm,) = found_in(check.model(text, {"eps": np.array(1e-3, np.float32)}, opset=13))
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.axes, norm.channel_axis) == (kind, (2,), axis)


def test_a_scale_on_the_last_axis_says_that_channels_are_last(check: Checker) -> None:
    body = (
        "mu = ReduceMean <axes=[1, 2, 3]> (x) c = Sub (x, mu) sq = Mul (c, c) "
        "v = ReduceMean <axes=[1, 2, 3]> (sq) ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) "
        "y = Mul (n, gamma)"
    )
    text = f"g (float[2, 4, 5, 12] x) => (float[2, 4, 5, 12] y) {{ {body} }}"
    (norm,) = found_in(check.model(text, used(body), opset=13))
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.groups, norm.channel_axis) == ("groupnorm", 1, 3)
    np.testing.assert_array_equal(norm.scale, parameters()["gamma"].astype(np.float64))


def test_an_inner_value_that_is_read_elsewhere_is_refused(check: Checker) -> None:
    body = f"{SPELLINGS['two passes'].replace('y =', 'z =')} e = Exp (c) f = Reshape (e, back) y = Add (z, f)"
    (found,) = found_in(check.model(IMAGE.format(body), used(body)))
    assert isinstance(found, LookAlike)
    assert found.code == "NF402"


@pytest.mark.parametrize(
    ("read", "found"), [("x", Norm), ("twice", LookAlike)], ids=["x under another shape", "twice x"]
)
def test_what_may_be_read_besides_it(check: Checker, read: str, found: type) -> None:
    """x stays whatever reads it; what is computed of it on the way would be computed for its own sake."""
    body = (
        "r = Reshape (x, rows) twice = Mul (r, two) mu = ReduceMean (r, last) c = Sub (r, mu) "
        "sq = Mul (c, c) v = ReduceMean (sq, last) ve = Add (v, eps) sd = Sqrt (ve) m = Mul (mu, two) "
        f"d = Sub (twice, m) n = Div (d, sd) y = Reshape (n, back) z = Relu ({'r' if read == 'x' else read})"
    )
    text = f"g (float[2, 12, 4, 5] x) => (float[2, 12, 4, 5] y, float[2, 3, 80] z) {{ {body} }}"
    (one,) = found_in(check.model(text, used(body)))
    assert isinstance(one, found)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("sq = Mul (c, c)", "sq = Mul (c, r)"),
        ("v = ReduceMean (sq, last)", "v = ReduceMax (sq, last)"),
        ("n = Div (c, sd)", "n = Div (r, sd)"),
        ("ve = Add (v, eps) sd = Sqrt (ve)", "ve = Add (v, eps) sd = Exp (ve)"),
    ],
)
def test_another_computation_is_not_a_groupnorm(check: Checker, was: str, becomes: str) -> None:
    assert was in SPELLINGS["two passes"]
    body = SPELLINGS["two passes"].replace(was, becomes)
    found = found_in(check.model(IMAGE.format(body), used(body)))
    # E[(x − μ)·x] is the variance all the same.
    expected = 1 if "Mul (c, r)" in becomes else 0
    assert sum(isinstance(one, Norm) for one in found) == expected


def test_one_behind_the_other(check: Checker) -> None:
    """The second is not mistaken for a part of the first, whose reductions lie behind its own."""
    first = (
        "mu = ReduceMean <axes=[2, 3]> (x) c = Sub (x, mu) s = Mul (c, c) v = ReduceMean <axes=[2, 3]> (s) "
        "ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)"
    )
    second = re.sub(r"\b(mu|c|s|v|ve|sd)\b", r"\1_2", re.sub(r"\bx\b", "h", first))
    body = f"{first.replace('y =', 'z =')} h = Relu (z) {second}"
    text = f"g (float[N, 12, H, W] x) => (float[N, 12, H, W] y) {{ {body} }}"
    found = found_in(check.model(text, {"eps": np.array(1e-3, np.float32)}, opset=13))
    assert [(n.x.name, n.y.name) for n in found if isinstance(n, Norm)] == [("x", "z"), ("h", "y")]


def test_dead_code_that_reads_an_inner_value_goes_on_reading(check: Checker) -> None:
    """A norm that left it behind would be found in it by the next fold."""
    spelling = SPELLINGS["two passes"].replace("y =", "z =")
    for dead, is_whole in (("", True), ("dead = Mul (n, two)", False), ("dead = Mul (c, two)", True)):
        body = f"{spelling} y = Relu (z) {dead}"
        found = found_in(check.model(IMAGE.format(body), used(body)))
        assert [isinstance(n, Norm) and n.y.name == "z" for n in found] == [is_whole], dead
