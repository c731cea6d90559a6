"""Which way an affine goes: all backward, all forward, scale and shift apart, or to where it costs least."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.chains import residual_chain
from normfold.affine import Affine
from normfold.folding import fold_model
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators import TABLE
from normfold.preparation.node_view import NodeView

ZERO_INSIDE = {"s": np.array([0.5, 0.0, 2.0, -1.0], np.float32)}


def net(check: Any, body: str, *, dims: str = "N, 4, 8, 8", **more: np.ndarray) -> onnx.ModelProto:
    constants = check.weights(w=(4, 4, 3, 3), u=(4, 4, 1, 1)) | check.batchnorm(4) | more
    used = {n: a for n, a in constants.items() if f", {n})" in body or f", {n}," in body}
    return check.model(f"g (float[{dims}] x) => (float[N, C, A, B] y) {{ {body} }}", used)


def test_backward_before_forward(check: Any) -> None:
    body = "c = Conv (x, u) n = BatchNormalization (c, s, b, m, v) y = Conv (n, w)"
    outcome = check(net(check, body)).gone("Conv", "Conv")
    assert outcome.folded.sites[0].into == ("n",)


def test_forward_where_backward_is_barred(check: Any) -> None:
    body = "c = Sigmoid (x) n = BatchNormalization (c, s, b, m, v) y = Conv (n, w)"
    outcome = check(net(check, body)).gone("Sigmoid", "Conv")
    assert outcome.folded.sites[0].into == ("y",)


APART = """a = Sigmoid (x) c = Conv (x, u) t = Add (a, c)
    n = BatchNormalization (t, s, b, m, v)
    y = Conv <pads = [1, 1, 1, 1]> (n, w)"""


def test_scale_forward_and_shift_backward(check: Any) -> None:
    """The sum takes a shift (in its Conv), not a scale; the padded Conv takes the scale, not a shift."""
    outcome = check(net(check, APART)).gone("Sigmoid", "Conv", "Add", "Conv")
    assert len(outcome.folded.sites[0].into) == 2


def test_a_zero_scale_bars_the_shift_in_front(check: Any) -> None:
    """NF127: the same model with one channel switched off."""
    assert check(net(check, APART, **ZERO_INSIDE)).sites["n"].code == "NF127"


@pytest.mark.parametrize("values", [{}, ZERO_INSIDE])
def test_a_zero_scale_is_not_blamed_for_another_obstacle(check: Any, values: dict[str, np.ndarray]) -> None:
    body = "a = Sigmoid (x) n = BatchNormalization (a, s, b, m, v) y = Sigmoid (n)"
    assert check(net(check, body, **values)).kept("NF114").site == "n"


def test_a_shift_that_would_explode_bars_the_way(check: Any) -> None:
    """t / s beyond the square root of the range: its own digits would drown everything else."""
    tiny = {"s": np.array([0.5, 1e-30, 2.0, -1.0], np.float32)}
    assert check(net(check, APART, **tiny)).sites["n"].code == "NF111"


def test_shift_of_two_computed_operands_stays(check: Any) -> None:
    """NF118: a MatMul of two computed values has no bias, and nothing behind it takes the shift."""
    model = check.model(
        """g (float[N, 5, 4] x, float[N, 4, 6] p) => (float[N, 5, 6] y) {
            t = MatMul (x, p) n = Add (t, k) y = Sigmoid (n)
        }""",
        check.weights(k=6),
    )
    outcome = check(model)
    assert not outcome.folded.changed
    assert [s.code for s in outcome.folded.sites] in (["NF118"], [])


def test_never_dearer(check: Any) -> None:
    """Behind an upsampling an affine touches more elements than in front of it: it does not move there."""
    body = """a = Sigmoid (x) n = BatchNormalization (a, s, b, m, v)
        t = Tile (n, r) y = Sigmoid (t)"""
    model = net(check, body, r=np.array([1, 1, 2, 2]))
    outcome = check(model)
    (site,) = outcome.folded.sites
    assert site.action == "kept" and outcome.ops[1] == "BatchNormalization"


def test_an_affine_moves_behind_a_reduction(check: Any) -> None:
    body = """a = Sigmoid (x) n = BatchNormalization (a, s, b, m, v)
        t = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (n) y = Sigmoid (t)"""
    outcome = check(net(check, body))
    (site,) = outcome.folded.sites
    assert site.action == "moved" and outcome.ops.index("AveragePool") == 1
    static = check(net(check, body, dims="1, 4, 8, 8"))
    assert static.folded.sites[0].elements == (256, 64)


@pytest.mark.parametrize(("size", "behind"), [(32, False), (128, True)])
def test_an_affine_that_comes_apart_pays_for_its_nodes(check: Any, size: int, behind: bool) -> None:
    """Behind the Split it is three nodes on three quarters of the elements: little, on a small value."""
    dims = f"float[1, 8, {size}, {size}]"
    model = check.model(
        f"""g ({dims} x) => ({dims} y) {{
            a = Sigmoid (x) n = BatchNormalization (a, s, b, m, v)
            p, q, r, c = Split <axis = 1, num_outputs = 4> (n)
            e = Exp (p) f = Exp (q) h = Exp (r) d = Conv (c, w)
            y = Concat <axis = 1> (e, f, h, d)
        }}""",
        check.weights(w=(2, 2, 1, 1)) | check.batchnorm(8),
    )
    assert check(model).counts["BatchNormalization"] == (3 if behind else 1)


def test_an_affine_that_takes_an_idle_one_over_costs_less(check: Any) -> None:
    """Added to Add (m, 0), it takes no node away, and touches the 4 elements of m instead of the 8 of a."""
    model = check.model(
        """g (float[4, 2] x) => (float[4, 2] y, float[4] z) {
            t = Sigmoid (x) a = Sub (t, k) d = Mul (a, q) y = Add (d, p)
            m = MatMul (a, w) z = Add (m, nothing)
        }""",
        check.weights(k=(2,), q=(2,), p=(2,), w=(2,)) | {"nothing": np.zeros((), np.float32)},
    )
    assert check(model).counts["Sub"] == 0


def test_a_shift_that_cannot_follow_stays(check: Any) -> None:
    """On [N, C] scale and shift are two operators; LeakyRelu lets the scale through."""
    rng = np.random.default_rng(0)
    model = check.model(
        """g (float[N, 4] x) => (float[N, 6] y) {
            c = Gemm (x, w) r = LeakyRelu (c) m = Mul (r, k) a = Add (m, t) y = Sigmoid (a)
        }""",
        check.weights(w=(4, 6), t=6) | {"k": rng.uniform(0.5, 2.0, 6).astype(np.float32)},
    )
    assert check(model).ops == ["Gemm", "LeakyRelu", "Add", "Sigmoid"]


def test_scale_backward_and_shift_forward(check: Any) -> None:
    """LeakyRelu lets the scale through, the sum the shift."""
    model = check.model(
        """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
            c = Conv (x, w) r = LeakyRelu (c) n = BatchNormalization (r, s, b, m, v)
            d = Tanh (x) t = Add (n, d) y = Conv (t, u)
        }""",
        check.weights(w=(4, 4, 1, 1), u=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    for tensor in model.graph.initializer:
        if tensor.name == "s":
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.abs(array), "s"))
    check(model).gone("Conv", "LeakyRelu", "Tanh", "Add", "Conv")


class Counting(Operator):
    """Counts how often an operator is asked."""

    def __init__(self, entry: Operator, asked: list[str]) -> None:
        self._entry, self._asked = entry, asked

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        self._asked.append(node.name)
        return self._entry.forward(node, given)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        self._asked.append(node.name)
        return self._entry.backward(node, wanted)

    def narrowed(self, node: NodeView, affine: Affine) -> Affine:
        return self._entry.narrowed(node, affine)


def test_a_way_ends_where_it_has_cost_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ``x + BatchNormalization(Relu(x))`` a shift could go on to the end, with a Max for each Relu."""
    asked: list[str] = []
    table = {op_type: Counting(entry, asked) for op_type, entry in TABLE.items()}
    monkeypatch.setattr("normfold.folding.folder.TABLE", table)
    blocks = 40
    sites = fold_model(residual_chain(blocks)).sites
    assert [site.action for site in sites] == ["kept"] * blocks
    assert blocks < len(asked) < 40 * blocks
