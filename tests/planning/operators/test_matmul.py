"""Affines into a MatMul: constant on either side, any rank, vectors, with or without an Add behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

K, N = 4, 6


def dims(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def matmul(
    check: Any,
    dynamic: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    left: bool = False,
    where: str = "behind",
    kind: str = "Mul",
    k: tuple[int, ...] = (),
    bias: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Any:
    """``left``: the constant is the left operand."""
    out = np.matmul(*(np.zeros(s) for s in ((weight, dynamic) if left else (dynamic, weight)))).shape
    node = "MatMul (w, {v})" if left else "MatMul ({v}, w)"
    affine = f"{kind} ({{v}}, k)"
    first, second = (node, affine) if where == "behind" else (affine, node)
    if bias is not None and where == "behind":
        body = f"t = {node.format(v='r')} u = Add (t, z) q = {affine.format(v='u')}"
    else:
        body = f"t = {first.format(v='r')} q = {second.format(v='t')}"
    constants = check.weights(seed, w=weight, k=k)
    if bias is not None:
        constants |= check.weights(seed + 1, z=bias)
    return check.model(
        f"g (float{dims(dynamic)} x) => (float{dims(out)} y) {{ r = Sigmoid (x) {body} y = Sigmoid (q) }}",
        constants,
    )


BARE = ("Sigmoid", "MatMul", "Sigmoid")
WITH_ADD = ("Sigmoid", "MatMul", "Add", "Sigmoid")


@pytest.mark.parametrize(
    ("dynamic", "weight", "k"),
    [
        ((5, K), (K, N), (N,)),
        ((2, 5, K), (K, N), (N,)),
        ((2, 3, 5, K), (K, N), (1, 1, 1, N)),
        ((K,), (K, N), (N,)),
        ((2, 5, K), (2, K, N), (2, 1, N)),
        ((2, 5, K), (2, K, N), (2, 1, 1)),
        ((5, K), (2, K, N), (2, 1, N)),
        ((3, 2, 5, K), (2, K, N), (2, 1, N)),
        ((K,), (2, K, N), (2, N)),
        ((K,), (2, K, N), (N,)),
        ((5, K), (K,), ()),
        ((2, 5, K), (K,), ()),
    ],
)
def test_a_scale_behind_a_constant_right_operand(
    check: Any, dynamic: tuple[int, ...], weight: tuple[int, ...], k: tuple[int, ...]
) -> None:
    check(matmul(check, dynamic, weight, k=k)).gone(*BARE)


@pytest.mark.parametrize(
    ("dynamic", "weight", "k"),
    [
        ((K, 5), (N, K), (N, 1)),
        ((2, K, 5), (N, K), (N, 1)),
        ((2, K, 5), (2, N, K), (2, N, 1)),
        ((K, 5), (2, N, K), (2, 1, 1)),
        ((K,), (N, K), (N,)),
        ((K,), (2, N, K), (2, N)),
        ((K,), (2, N, K), (2, 1)),
        ((K, 5), (K,), ()),
    ],
)
def test_a_scale_behind_a_constant_left_operand(
    check: Any, dynamic: tuple[int, ...], weight: tuple[int, ...], k: tuple[int, ...]
) -> None:
    check(matmul(check, dynamic, weight, left=True, k=k)).gone(*BARE)


@pytest.mark.parametrize("bias", [(N,), (1, N), (), (1,)])
@pytest.mark.parametrize("kind", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("dynamic", [(5, K), (2, 5, K)])
def test_with_a_bias(check: Any, bias: tuple[int, ...], kind: str, dynamic: tuple[int, ...]) -> None:
    """``MatMul, Add, affine`` becomes ``MatMul, Add``."""
    check(matmul(check, dynamic, (K, N), kind=kind, k=(N,), bias=bias)).gone(*WITH_ADD)


@pytest.mark.parametrize("dynamic", [(5, K), (2, 5, K)])
def test_a_shift_alone_is_a_bias_and_no_site(check: Any, dynamic: tuple[int, ...]) -> None:
    outcome = check(matmul(check, dynamic, (K, N), kind="Add", k=(N,)))
    assert not outcome.folded.changed and sorted(outcome.ops) == sorted(WITH_ADD)
    assert outcome.folded.sites == []


@pytest.mark.parametrize("kind", ["Mul", "Add"])
@pytest.mark.parametrize(
    ("dynamic", "weight", "left", "k"),
    [
        ((5, K), (K, N), False, (K,)),
        ((2, 5, K), (K, N), False, (K,)),
        ((2, 5, K), (2, K, N), False, (K,)),
        ((5, K), (2, K, N), False, (K,)),
        ((K, 5), (N, K), True, (K, 1)),
        ((2, K, 5), (N, K), True, (K, 1)),
        ((2, K, 5), (2, N, K), True, (K, 1)),
        ((5, K), (K, N), False, ()),
        ((K, 5), (N, K), True, ()),
    ],
)
def test_in_front_along_the_contracted_axis(
    check: Any, dynamic: tuple[int, ...], weight: tuple[int, ...], left: bool, k: tuple[int, ...], kind: str
) -> None:
    outcome = check(matmul(check, dynamic, weight, left=left, where="front", kind=kind, k=k))
    assert outcome.counts["MatMul"] == 1
    if kind == "Mul":
        outcome.gone(*BARE)


@pytest.mark.parametrize(
    ("dynamic", "weight", "left", "k"),
    [
        ((5, K), (K, N), False, (5, 1)),
        ((2, 5, K), (K, N), False, (2, 1, 1)),
        ((2, 5, K), (K, N), False, (5, K)),
        ((K, 5), (N, K), True, (5,)),
        ((5, K), (K,), False, (K,)),
        ((K,), (K, N), False, (K,)),
        ((5, K), (K, N), False, (5, K)),
    ],
)
@pytest.mark.parametrize("kind", ["Mul", "Add"])
@pytest.mark.parametrize("where", ["front", "behind"])
def test_other_axes_stay_right(
    check: Any,
    dynamic: tuple[int, ...],
    weight: tuple[int, ...],
    left: bool,
    k: tuple[int, ...],
    kind: str,
    where: str,
) -> None:
    """Not all of these can go; none of them may crash or change a value."""
    if where == "behind":
        out = np.matmul(*(np.zeros(s) for s in ((weight, dynamic) if left else (dynamic, weight)))).shape
        k = out[-len(k) :] if k else ()
    check(matmul(check, dynamic, weight, left=left, where=where, kind=kind, k=k))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_shapes_stay_right(check: Any, data: st.DataObject) -> None:
    batch = data.draw(st.lists(st.integers(1, 3), max_size=2), label="batch")

    def operand(core: tuple[int, ...], vector: tuple[int, ...]) -> tuple[int, ...]:
        if data.draw(st.booleans()) and not batch:
            return data.draw(st.sampled_from([core, vector]))
        kept = batch[data.draw(st.integers(0, len(batch))) :]
        return (*(data.draw(st.sampled_from([1, size])) for size in kept), *core)

    left = data.draw(st.booleans(), label="left")
    a, b = operand((5, K), (K,)), operand((K, N), (K,))
    if len(a) == 1 and len(b) == 1:
        return
    dynamic, weight = (b, a) if left else (a, b)
    where = data.draw(st.sampled_from(["behind", "front"]), label="where")
    target = np.matmul(np.zeros(a), np.zeros(b)).shape if where == "behind" else dynamic
    full = target[data.draw(st.integers(0, len(target))) :]
    k = tuple(data.draw(st.sampled_from([1, size])) for size in full)
    kind = data.draw(st.sampled_from(["Mul", "Add"]), label="kind")
    check(matmul(check, dynamic, weight, left=left, where=where, kind=kind, k=k), tolerance=1e-11)


def test_symbolic_batch_and_length(check: Any) -> None:
    model = check.model(
        """g (float[B, L, 4] x) => (float[B, L, 6] y) {
            t = MatMul (x, w)
            u = Add (z, t)
            q = Mul (u, k)
            y = Sub (q, z)
        }""",
        check.weights(w=(4, 6), z=6, k=6),
    )
    check(model).gone("MatMul", "Add")


def test_batchnorm_on_the_result(check: Any) -> None:
    model = check.model(
        "g (float[B, 4] x) => (float[B, 6] y) { t = MatMul (x, w) y = BatchNormalization (t, s, b, m, v) }",
        check.weights(w=(4, 6)) | check.batchnorm(6),
    )
    check(model).gone("MatMul", "Add")


def test_two_computed_operands_take_a_uniform_scale(check: Any) -> None:
    """Attention: the scale on q·kᵀ goes into the projection of q."""
    model = check.model(
        """g (float[B, 5, 4] x) => (float[B, 5, 5] y) {
            q = MatMul (x, wq)
            p = MatMul (x, wp)
            t = Transpose <perm = [0, 2, 1]> (p)
            a = MatMul (q, t)
            s = Mul (a, k)
            y = Softmax (s)
        }""",
        check.weights(wq=(4, 4), wp=(4, 4)) | {"k": np.array(0.5, np.float32)},
    )
    assert check(model).counts["Mul"] == 0


def test_two_computed_operands_take_nothing_else(check: Any) -> None:
    model = check.model(
        """g (float[B, 5, 4] x, float[B, 4, 6] p) => (float[B, 5, 6] y) {
            q = Sigmoid (x) r = Sigmoid (p)
            a = MatMul (q, r)
            y = Mul (a, k)
        }""",
        check.weights(k=6),
    )
    check(model).kept("NF115")


def test_rows_are_not_an_axis_of_the_weight(check: Any) -> None:
    check(matmul(check, (2, 5, N), (N, K), k=(5, 1))).kept("NF114")


def test_a_scale_of_rows_moves_to_the_narrow_side(check: Any) -> None:
    """It crosses to the computed operand; with K < N that has fewer elements."""
    outcome = check(matmul(check, (2, 5, K), (K, N), k=(5, 1)))
    assert outcome.ops == ["Sigmoid", "Mul", "MatMul", "Sigmoid"]
    assert [s.action for s in outcome.folded.sites] == ["moved"]


def test_integers_are_left_alone(check: Any) -> None:
    model = check.model(
        "g (int32[5, 4] x) => (int32[5, 6] y) { t = MatMul (x, w) y = Mul (t, k) }",
        {"w": np.arange(24, dtype=np.int32).reshape(4, 6), "k": np.arange(6, dtype=np.int32)},
    )
    assert not check(model).folded.changed


def test_a_weight_is_not_repeated_along_the_batch(harness: Any) -> None:
    """It has one matrix for the whole batch: the scale crosses to the operand that has the axis."""
    node = harness.one(
        "g (double[2, 5, 4] x) => (double[2, 5, 6] y) { y = MatMul (x, w) }", harness.weights(0, w=(1, 4, 6))
    )
    crossing = node.backward(harness.affine(0, (2, 5, 6), (0,), shift=False))
    assert list(crossing.affines) == [0] and not crossing.constants


def test_two_computed_operands_bring_a_scale_each(harness: Any) -> None:
    node = harness.one("g (double[2, 5, 4] x, double[4, 6] p) => (double[2, 5, 6] y) { y = MatMul (x, p) }")
    crossing = node.forward({0: Affine.of(2.0, rank=3), 1: Affine.of(-3.0, rank=2)})
    assert crossing.affines[0].same_as(Affine.of(-6.0, rank=3))
