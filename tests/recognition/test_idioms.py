"""Spellings that runtimes fuse stay whole (docs/decisions/0005)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from normfold.options import FoldOptions

LAYER_NORM = """
    m = ReduceMean (x, axis)
    d = Sub (x, m)
    q = Pow (d, two)
    v = ReduceMean (q, axis)
    a = Add (v, eps)
    r = Sqrt (a)
    h = Div (d, r)
    n = Mul (h, g)
    z = Add (n, b)
"""
GELU = """
    t = Div (x, root)
    e = Erf (t)
    o = Add (e, one)
    p = Mul (x, o)
    z = Mul (p, half)
"""


def constants(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "axis": np.array([-1]),
        "two": np.array(2.0, np.float32),
        "eps": np.array(1e-5, np.float32),
        "g": rng.uniform(0.5, 2, 6).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
        "root": np.array(np.sqrt(2), np.float32),
        "one": np.array(1.0, np.float32),
        "half": np.array(0.5, np.float32),
        "w": rng.standard_normal((6, 4)).astype(np.float32),
        "k": rng.uniform(0.5, 2, 6).astype(np.float32),
        "c": rng.standard_normal(6).astype(np.float32),
    }


def build(check: Any, body: str, *, dims: str = "N, 5, 6") -> Any:
    text = f"g (float[{dims}] x) => (float y) {{ {body} }}"
    used = {name: value for name, value in constants().items() if f" {name})" in text or f", {name} " in text}
    return check.model(text.replace("(float y)", "(float[N, 5, M] y)"), used)


@pytest.mark.parametrize("body", [LAYER_NORM, GELU], ids=["layer-norm", "gelu"])
def test_nothing_leaves_an_idiom_for_the_layer_behind_it(check: Any, body: str) -> None:
    model = build(check, body + " y = MatMul (z, w)")
    outcome = check(model)
    assert not outcome.folded.changed
    assert outcome.counts["Mul"] == sum(node.op_type == "Mul" for node in model.graph.node)


def test_a_layer_norm_is_one_site(check: Any) -> None:
    outcome = check(build(check, LAYER_NORM + " y = MatMul (z, w)"))
    (site,) = outcome.folded.sites
    assert (site.site, site.kind, site.code) == ("z", "layernorm", "NF121")


def test_a_layer_norm_takes_what_follows_and_stays_mul_and_add(check: Any) -> None:
    outcome = check(build(check, LAYER_NORM + " s = Mul (z, k) t = Add (s, c) y = Relu (t)"))
    assert outcome.counts["Mul"] == 1 and outcome.counts["Add"] == 2
    assert outcome.counts["BatchNormalization"] == 0


def test_nothing_crosses_an_idiom(check: Any) -> None:
    outcome = check(build(check, GELU + " s = Mul (z, k) y = Relu (s)"))
    assert outcome.kept("NF128").site == "s"


def test_asked_to_the_scale_and_shift_of_a_layer_norm_go_forward(check: Any) -> None:
    model = build(check, LAYER_NORM + " y = MatMul (z, w)")
    outcome = check(model, FoldOptions(fold_norm_affine=True))
    assert outcome.counts["Mul"] == 0


def test_an_equal_spelling_over_another_axis_is_no_idiom(check: Any) -> None:
    values = constants() | {"axis": np.array([1])}
    body = LAYER_NORM + " y = MatMul (z, w)"
    used = {name: v for name, v in values.items() if f" {name})" in body}
    outcome = check(check.model(f"g (float[N, 5, 6] x) => (float[N, 5, 4] y) {{ {body} }}", used))
    assert outcome.folded.changed and outcome.counts["Mul"] == 0


NORMS = {
    "layernorm": "z = LayerNormalization <axis = -1> (x, g, b)",
    "rmsnorm": "z = RMSNormalization <axis = -1> (x, g)",
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_asked_to_the_affine_of_a_normalisation_goes_into_the_linear_layer(check: Any, norm: str) -> None:
    text = f"g (float[N, 5, 6] x) => (float[N, 5, 4] y) {{ {norm} m = MatMul (z, w) y = Add (m, c) }}"
    values = {k: v for k, v in constants().items() if k in ("g", "w") or (k == "b" and "b)" in norm)}
    values["c"] = constants()["c"][:4]
    model = check.model(text, values, opset=23)
    assert not check(model).folded.changed
    outcome = check(model, FoldOptions(fold_norm_affine=True))
    scale = ir.from_proto(outcome.proto).graph.node(0).inputs[1]
    assert scale is not None and scale.const_value is not None
    np.testing.assert_array_equal(scale.const_value.numpy(), 1.0)


def test_a_sigmoid_between_two_constant_factors_is_no_gelu(check: Any) -> None:
    outcome = check(build(check, "t = Mul (x, half) e = Sigmoid (t) p = Mul (e, half) y = MatMul (p, w)"))
    assert outcome.counts["Mul"] == 1
    assert outcome.kept("NF106").site == "t"


def test_erf_and_another_constant_than_one_is_no_gelu(check: Any) -> None:
    outcome = check(build(check, GELU.replace("one", "two") + " y = MatMul (z, w)"))
    assert outcome.counts["Mul"] == 1
    assert outcome.sites["z"].action == "folded"


def test_a_gate_by_its_own_sigmoid_is_one(check: Any) -> None:
    outcome = check(build(check, "t = Mul (x, half) e = Sigmoid (t) p = Mul (x, e) y = MatMul (p, w)"))
    assert not outcome.folded.changed and not outcome.folded.sites


def on_axis_1(check: Any, body: str, *, rows: tuple[int, ...] = (5, 1)) -> Any:
    values = constants() | {"rows": np.random.default_rng(1).uniform(0.5, 2, rows).astype(np.float32)}
    used = {name: v for name, v in values.items() if f" {name})" in body or f", {name} " in body}
    return check.model(f"g (float[N, 5, 6] x) => (float[N, 5, M] y) {{ {body} }}", used)


def test_a_layer_norm_takes_nothing_on_another_axis(check: Any) -> None:
    outcome = check(on_axis_1(check, LAYER_NORM + " s = Mul (z, rows) y = Relu (s)"))
    assert outcome.counts["Mul"] == 2
    assert outcome.kept("NF128", "s")


def test_a_layer_norm_takes_nothing_on_another_axis_from_afar(check: Any) -> None:
    body = LAYER_NORM + " t = Transpose <perm = [0, 2, 1]> (z) s = Mul (t, rows) y = Relu (s)"
    outcome = check(on_axis_1(check, body, rows=(5,)))
    assert outcome.counts["Mul"] == 2
    assert outcome.kept("NF128", "s")


def test_a_scale_on_another_axis_is_not_that_of_a_layer_norm(check: Any) -> None:
    body = LAYER_NORM.replace("Mul (h, g)", "Mul (h, rows)").replace("Add (n, b)", "Relu (n)")
    outcome = check(on_axis_1(check, body + " y = MatMul (z, w)"))
    assert [site.site for site in outcome.folded.sites if site.kind == "layernorm"] == ["h"]
    # It goes to where there are fewer elements.
    assert [site.action for site in outcome.folded.sites if site.site == "n"] == ["moved"]


def test_a_layer_norm_keeps_a_scale_of_one(check: Any) -> None:
    """Runtimes look for the Mul; without it the Add would go elsewhere the next time."""
    ones = {"g": np.ones(6, np.float32), "b": np.full(6, 0.5, np.float32)}
    used = {name: v for name, v in (constants() | ones).items() if f" {name})" in LAYER_NORM}
    body = LAYER_NORM + " y = HardSigmoid (z)"
    model = check.model(f"g (float[N, 5, 6] x) => (float[N, 5, 6] y) {{ {body} }}", used)
    assert not check(model).folded.changed


def test_a_layer_norm_that_meets_its_inverse_keeps_a_scale_of_one(check: Any) -> None:
    values = {"g": np.full(6, 2.0, np.float32), "k": np.array(0.5, np.float32)}
    body = LAYER_NORM + " s = Mul (z, k) y = HardSigmoid (s)"
    used = {n: v for n, v in (constants() | values).items() if f" {n})" in body}
    outcome = check(check.model(f"g (float[N, 5, 6] x) => (float[N, 5, 6] y) {{ {body} }}", used))
    assert outcome.counts["Mul"] == 1 and outcome.counts["Add"] == 2


def test_the_shift_of_a_layer_norm_takes_no_scale(check: Any) -> None:
    """Its own scale may enlarge what it is multiplied with, and is no affine."""
    body = LAYER_NORM + " s = Mul (z, half) y = Relu (s)"
    used = {name: v for name, v in constants().items() if f" {name})" in body}
    model = check.model(f"g (float[N, 5, L] x) => (float[N, 5, 6] y) {{ {body} }}", used)
    assert not check.fold_only(model).changed
