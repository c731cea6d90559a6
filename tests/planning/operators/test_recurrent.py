"""LSTM, GRU and RNN, on their input, against torch."""

from __future__ import annotations

import numpy as np
import onnx.reference
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.folding import fold_model
from normfold.planning.operators import TABLE

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_SIZE, _HIDDEN = 5, 2


def _text(op, bias, directions, more=""):
    direction = {1: "forward", 2: "bidirectional"}[directions]
    call = f'{op} <hidden_size = {_HIDDEN}, direction = "{direction}"{more}> (x, w, r{", b" if bias else ""})'
    return f"g (double[S, N, {_SIZE}] x) => (double[S, {directions}, N, {_HIDDEN}] y) {{ y = {call} }}"


def _weights(harness, op, bias, directions, seed=1):
    rows = _GATES[op] * _HIDDEN
    shapes = {"w": (directions, rows, _SIZE), "r": (directions, rows, _HIDDEN)}
    return harness.weights(seed, **shapes, **({"b": (directions, 2 * rows)} if bias else {}))


@settings(max_examples=25, deadline=None)
@given(
    op=st.sampled_from(sorted(_GATES)),
    bias=st.booleans(),
    directions=st.integers(1, 2),
    scale=st.booleans(),
    shift=st.booleans(),
    seed=st.integers(0, 99),
)
def test_weights_take_scale_and_shift(harness, op, bias, directions, scale, shift, seed):
    """``X @ Wᵀ + Wb`` is all that reads X: compare it, and the recurrent half of B."""
    weights = _weights(harness, op, bias, directions, seed)
    view = harness.one(_text(op, bias, directions), weights).view
    affine = harness.affine(seed, (1, 1, _SIZE), (2,), scale=scale, shift=shift)
    crossing = TABLE[op].forward(view, {0: affine})
    assert not crossing.affines
    after = {**weights, **{{1: "w", 3: "b"}[s]: c.compute() for s, c in crossing.constants.items()}}
    rows = _GATES[op] * _HIDDEN
    zero = np.zeros((directions, 2 * rows))
    x = np.random.default_rng(seed).standard_normal((7, _SIZE))
    for d in range(directions):
        before = affine.apply(x[None])[0] @ weights["w"][d].T + weights.get("b", zero)[d, :rows]
        np.testing.assert_allclose(x @ after["w"][d].T + after.get("b", zero)[d, :rows], before, atol=1e-13)
    np.testing.assert_array_equal(after.get("b", zero)[:, rows:], weights.get("b", zero)[:, rows:])


@pytest.mark.parametrize("op", sorted(_GATES))
def test_fold_in_front_of_a_recurrent_layer(harness, op):
    """Sigmoid → Mul → Add → layer, held to torch's layer on the same weights."""
    text = f"""g (double[S, N, {_SIZE}] x) => (double[S, 1, N, {_HIDDEN}] y) {{
        a = Sigmoid (x)
        b0 = Mul (a, s)
        c = Add (b0, t)
        y = {op} <hidden_size = {_HIDDEN}{", linear_before_reset = 1" if op == "GRU" else ""}> (c, w, r, b)
    }}"""
    constants = {**_weights(harness, op, True, 1), **harness.weights(2, s=(_SIZE,), t=(_SIZE,))}
    folded = fold_model(ir.from_proto(harness.model(text, constants)))
    assert [n.op_type for n in folded.model.graph] == ["Sigmoid", op]
    x = np.random.default_rng(3).standard_normal((4, 2, _SIZE))
    (ours,) = onnx.reference.ReferenceEvaluator(ir.to_proto(folded.model)).run(None, {"x": x})
    layer = getattr(torch.nn, op)(_SIZE, _HIDDEN).double()
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}[op]  # torch's gates by ONNX's

    def gates(array):
        return torch.from_numpy(np.concatenate([np.split(array, len(order))[i] for i in order]))

    rows = _GATES[op] * _HIDDEN
    with torch.no_grad():
        layer.weight_ih_l0.copy_(gates(constants["w"][0]))
        layer.weight_hh_l0.copy_(gates(constants["r"][0]))
        layer.bias_ih_l0.copy_(gates(constants["b"][0, :rows]))
        layer.bias_hh_l0.copy_(gates(constants["b"][0, rows:]))
        scale, shift = (torch.from_numpy(constants[name]) for name in "st")
        theirs = layer(torch.sigmoid(torch.from_numpy(x)) * scale + shift)[0]
    np.testing.assert_allclose(ours[:, 0], theirs.numpy(), atol=1e-12)


def test_the_last_axis_is_the_input_in_every_layout(harness):
    view = harness.one(_text("LSTM", True, 1, ", layout = 1"), _weights(harness, "LSTM", True, 1)).view
    assert TABLE["LSTM"].forward(view, {0: harness.affine(1, (1, 1, _SIZE), (2,))}).constants


@pytest.mark.parametrize("part", ["scale", "shift"])
@pytest.mark.parametrize("axis", [0, 1])
def test_another_axis(harness, axis, part):
    view = harness.one(_text("LSTM", True, 1), _weights(harness, "LSTM", True, 1)).view
    with harness.refused("NF110"):
        affine = harness.affine(1, (4, 4, _SIZE), (axis,), scale=part == "scale", shift=part == "shift")
        TABLE["LSTM"].forward(view, {0: affine})


def test_a_state(harness):
    text = """g (double[S, N, 5] x, double[1, N, 2] h) => (double[S, 1, N, 2] y) {
        y = RNN <hidden_size = 2> (x, w, r, b, , h)
    }"""
    view = harness.one(text, _weights(harness, "RNN", True, 1)).view
    with harness.refused("NF114"):
        TABLE["RNN"].forward(view, {5: Affine.of(2.0, rank=3)})


def test_the_output(harness):
    view = harness.one(_text("RNN", True, 1), _weights(harness, "RNN", True, 1)).view
    with harness.refused("NF114"):
        TABLE["RNN"].backward(view, {0: Affine.of(2.0, rank=4)})
