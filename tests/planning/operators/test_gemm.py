"""Affines into a Gemm: either operand constant, transposed or not, alpha, beta, every shape of C."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

M, K, N = 5, 4, 6
C_SHAPES: dict[str, tuple[int, ...] | None] = {
    "none": None,
    "scalar": (),
    "[1]": (1,),
    "[N]": (N,),
    "[1, N]": (1, N),
    "[1, 1]": (1, 1),
    "[M, 1]": (M, 1),
    "[M, N]": (M, N),
}


def gemm(
    check: Any,
    *,
    constant: str = "B",
    trans: tuple[int, int] = (0, 0),
    alpha: float = 1.0,
    beta: float = 1.0,
    c: tuple[int, ...] | None = None,
    where: str = "behind",
    affine: str = "Mul ({v}, k)",
    seed: int = 0,
    opset: int = 20,
    rows: str = str(M),
    extra: dict[str, np.ndarray] | None = None,
) -> Any:
    """``y = affine(Gemm)`` or ``Gemm(affine)``; ``constant`` names the operand that is a weight."""
    a, b = (K, M) if trans[0] else (M, K), (N, K) if trans[1] else (K, N)
    dynamic, weight = (a, b) if constant == "B" else (b, a)
    dims = ", ".join(rows if constant == "B" and d == M else str(d) for d in dynamic)
    operands = "{v}, w" if constant == "B" else "w, {v}"
    operands += "" if c is None else ", z"
    broadcast = ", broadcast = 1" if opset < 7 and c != (M, N) else ""
    node = (
        f"Gemm <transA = {trans[0]}, transB = {trans[1]}, alpha = {float(alpha)}, beta = {float(beta)}"
        f"{broadcast}> ({operands})"
    )
    first, second = (node, affine) if where == "behind" else (affine, node)
    constants = check.weights(seed, w=weight) | (extra or {})
    if c is not None:
        constants |= check.weights(seed + 1, z=c)
    return check.model(
        f"""g (float[{dims}] x) => (float[R, {N}] y) {{
            r = Sigmoid (x)
            t = {first.format(v="r")}
            q = {second.format(v="t")}
            y = Sigmoid (q)
        }}""",
        constants,
        opset=opset,
    )


GONE = ("Sigmoid", "Gemm", "Sigmoid")


@settings(max_examples=60, deadline=None)
@given(
    trans=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.0, 0.25, -3.0]),
    c=st.sampled_from(sorted(C_SHAPES)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["Mul", "Add", "Sub", "BatchNormalization"]),
)
def test_columns_behind_a_constant_right_operand(
    check: Any, trans: tuple[int, int], alpha: float, beta: float, c: str, seed: int, kind: str
) -> None:
    affine = "BatchNormalization ({v}, s, b, m, v)" if kind == "BatchNormalization" else f"{kind} ({{v}}, k)"
    extra = check.batchnorm(N, seed) if kind == "BatchNormalization" else check.weights(seed, k=N)
    model = gemm(
        check, trans=trans, alpha=alpha, beta=beta, c=C_SHAPES[c], affine=affine, seed=seed, extra=extra
    )
    check(model).gone(*GONE)


@settings(max_examples=40, deadline=None)
@given(
    trans=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    alpha=st.sampled_from([1.0, -0.5]),
    beta=st.sampled_from([1.0, 0.0, 0.25]),
    c=st.sampled_from(sorted(C_SHAPES)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["Mul", "Add"]),
)
def test_rows_behind_a_constant_left_operand(
    check: Any, trans: tuple[int, int], alpha: float, beta: float, c: str, seed: int, kind: str
) -> None:
    model = gemm(
        check,
        constant="A",
        trans=trans,
        alpha=alpha,
        beta=beta,
        c=C_SHAPES[c],
        affine=f"{kind} ({{v}}, k)",
        seed=seed,
        extra=check.weights(seed, k=(M, 1)),
    )
    check(model).gone(*GONE)


@settings(max_examples=60, deadline=None)
@given(
    constant=st.sampled_from("AB"),
    trans=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.0, 0.25]),
    c=st.sampled_from(sorted(C_SHAPES)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["Mul", "Add"]),
)
def test_the_contracted_axis_in_front(
    check: Any,
    constant: str,
    trans: tuple[int, int],
    alpha: float,
    beta: float,
    c: str,
    seed: int,
    kind: str,
) -> None:
    along_last = trans[0] == 0 if constant == "B" else trans[1] == 1
    model = gemm(
        check,
        constant=constant,
        trans=trans,
        alpha=alpha,
        beta=beta,
        c=C_SHAPES[c],
        where="front",
        affine=f"{kind} ({{v}}, k)",
        seed=seed,
        extra=check.weights(seed, k=K if along_last else (K, 1)),
    )
    check(model).gone(*GONE)


@pytest.mark.parametrize("kind", ["Mul", "Add"])
@pytest.mark.parametrize("c", C_SHAPES.values(), ids=C_SHAPES)
@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("where", ["behind", "front"])
@pytest.mark.parametrize("constant", ["A", "B"])
def test_a_uniform_affine(
    check: Any, kind: str, c: tuple[int, ...] | None, beta: float, where: str, constant: str
) -> None:
    model = gemm(
        check,
        constant=constant,
        beta=beta,
        c=c,
        where=where,
        affine=f"{kind} ({{v}}, k)",
        extra={"k": np.array(-1.5, np.float32)},
    )
    check(model).gone(*GONE)


@pytest.mark.parametrize("opset", [6, 7, 9, 10, 11, 12, 13])
@pytest.mark.parametrize("c", [(N,), (1, N), (M, N), (1,)])
@pytest.mark.parametrize("where", ["behind", "front"])
def test_every_opset(check: Any, opset: int, c: tuple[int, ...], where: str) -> None:
    """Opset 6 broadcasts C only where its attribute says so; a C that a fold grows too."""
    size = N if where == "behind" else K
    test = "is_test = 1" if opset < 7 else ""
    model = gemm(
        check,
        c=c,
        where=where,
        opset=opset,
        affine=f"BatchNormalization <{test}> ({{v}}, s, b, m, v)"
        if test
        else "BatchNormalization ({v}, s, b, m, v)",
        extra=check.batchnorm(size),
    )
    check(model).gone(*GONE)


@pytest.mark.parametrize("opset", [10, 11])
def test_c_may_be_left_out_from_opset_11(check: Any, opset: int) -> None:
    c = (N,) if opset < 11 else None
    model = gemm(check, c=c, opset=opset, affine="Add ({v}, k)", extra=check.weights(k=N))
    outcome = check(model).gone(*GONE)
    (node,) = [n for n in outcome.proto.graph.node if n.op_type == "Gemm"]
    assert len(node.input) == 3


def test_rows_are_not_an_axis_of_the_right_operand(check: Any) -> None:
    check(gemm(check, extra=check.weights(k=(M, 1)))).kept("NF110")


def test_a_scale_per_element_is_nobodys(check: Any) -> None:
    check(gemm(check, extra=check.weights(k=(M, N)))).kept("NF110")


def test_a_shift_per_element_is_a_full_c(check: Any) -> None:
    outcome = check(gemm(check, c=(N,), affine="Add ({v}, k)", extra=check.weights(k=(M, N))))
    assert outcome.counts["Gemm"] == 1


def test_a_symbolic_number_of_rows(check: Any) -> None:
    model = gemm(
        check, rows="R", c=(N,), affine="BatchNormalization ({v}, s, b, m, v)", extra=check.batchnorm(N)
    )
    check(model).gone(*GONE)


@pytest.mark.parametrize("beta", [1.0, 0.0])
def test_c_computed_at_run_time(check: Any, beta: float) -> None:
    """With beta = 0 nothing of it is read, and the shift may take its place."""
    model = check.model(
        f"""g (float[{M}, {K}] x, float[{N}] p) => (float[{M}, {N}] y) {{
            z = Sigmoid (p)
            c = Gemm <beta = {beta}> (x, w, z)
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        check.weights(w=(K, N)) | check.batchnorm(N),
    )
    outcome = check(model)
    assert ("BatchNormalization" in outcome.ops) is (beta == 1.0)


def test_both_operands_computed_at_run_time(check: Any) -> None:
    model = check.model(
        f"""g (float[{M}, {K}] x, float[{K}, {N}] p) => (float[{M}, {N}] y) {{
            q = Sigmoid (p) r = Sigmoid (x)
            c = Gemm (r, q, z)
            y = Mul (c, k)
        }}""",
        check.weights(z=(N,), k=(N,)),
    )
    check(model).kept("NF115")


def test_one_tensor_in_two_slots(check: Any) -> None:
    """B and C are the same initializer: each slot gets its own."""
    model = check.model(
        f"""g (float[{N}, {N}] x) => (float[{N}, {N}] y) {{
            c = Gemm (x, w, w)
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        check.weights(w=(N, N)) | check.batchnorm(N),
    )
    check(model).gone("Gemm")


def test_the_same_value_on_both_sides(check: Any) -> None:
    model = check.model(
        f"g (float[{N}, {N}] x) => (float[{N}, {N}] y) {{ r = Sigmoid (x) t = Mul (r, k) y = Gemm (t, t) }}",
        check.weights(k=N),
    )
    outcome = check(model)
    assert outcome.counts["Mul"] == 1 and not outcome.folded.changed
    assert onnx.TensorProto.FLOAT in {t.data_type for t in outcome.proto.graph.initializer}


@pytest.mark.parametrize("call", ["Gemm (x, w, c)", "Gemm (w, x, c)"])
def test_a_computed_c_hands_nothing_on(harness: Any, call: str) -> None:
    node = harness.one(
        f"g (double[4, 4] x, double[1, 4] c) => (double[4, 4] y) {{ y = {call} }}",
        harness.weights(0, w=(4, 4)),
    )
    with harness.refused("NF114"):
        node.forward({2: Affine.of(2.0, rank=2)})


@pytest.mark.parametrize("part", ["scale", "shift"])
@pytest.mark.parametrize(("call", "slot"), [("Gemm (x, w)", 0), ("Gemm (w, x)", 1)])
def test_a_free_axis_in_front(harness: Any, call: str, slot: int, part: str) -> None:
    node = harness.one(
        f"g (double[4, 4] x) => (double[4, 4] y) {{ y = {call} }}", harness.weights(0, w=(4, 4))
    )
    affine = harness.affine(0, (4, 4), (slot,), scale=part == "scale", shift=part == "shift")
    with harness.refused("NF110"):
        node.forward({slot: affine})
