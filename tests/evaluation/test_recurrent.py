"""LSTM, GRU and RNN against torch in float64; peepholes, clips and odd activations against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from normfold.evaluation import NotCovered

T, N, INPUT, H = 5, 3, 2, 4
# torch gate order -> ONNX gate order
ORDER = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


def _torch_layer(torch, kind, bidirectional):
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(INPUT, H, bidirectional=bidirectional).double()
    order = ORDER[kind]

    def gates(parameter):
        parts = np.split(parameter.detach().numpy(), len(order))
        return np.concatenate([parts[index] for index in order])

    suffixes = ["", "_reverse"] if bidirectional else [""]
    w = np.stack([gates(getattr(layer, f"weight_ih_l0{s}")) for s in suffixes])
    r = np.stack([gates(getattr(layer, f"weight_hh_l0{s}")) for s in suffixes])
    b = np.stack(
        [
            np.concatenate([gates(getattr(layer, f"bias_ih_l0{s}")), gates(getattr(layer, f"bias_hh_l0{s}"))])
            for s in suffixes
        ]
    )
    return layer, w, r, b


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("lengths", [None, [5, 2, 3]])
def test_recurrent_layers_equal_torch(evaluate, kind, bidirectional, layout, lengths):
    torch = pytest.importorskip("torch")
    layer, w, r, b = _torch_layer(torch, kind, bidirectional)
    rng = np.random.default_rng(0)
    directions = 2 if bidirectional else 1
    x = rng.standard_normal((T, N, INPUT))
    states = [rng.standard_normal((directions, N, H)) for _ in range(2 if kind == "LSTM" else 1)]
    swap = (lambda a: a.swapaxes(0, 1)) if layout else (lambda a: a)
    y, *finals = evaluate(
        kind,
        [swap(x), w, r, b, None if lengths is None else np.array(lengths, np.int32), *map(swap, states)],
        outputs=1 + len(states),
        hidden_size=H,
        layout=layout,
        direction="bidirectional" if bidirectional else "forward",
        **({"linear_before_reset": 1} if kind == "GRU" else {}),
    )
    initial = tuple(torch.tensor(s) for s in states)
    initial = initial if kind == "LSTM" else initial[0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), lengths or [T] * N, enforce_sorted=False
    )
    out, last = layer(packed, initial)
    out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, total_length=T)
    expected = out.detach().numpy().reshape(T, N, directions, H)
    expected = expected.transpose(1, 0, 2, 3) if layout else expected.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    for final, wanted in zip(finals, last if kind == "LSTM" else [last], strict=True):
        np.testing.assert_allclose(swap(final), wanted.detach().numpy(), rtol=1e-12, atol=1e-12)


def _operands(gates, directions=1):
    rng = np.random.default_rng(0)
    random = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    x, w, r = random(T, N, INPUT), random(directions, gates * H, INPUT), random(directions, gates * H, H)
    return x, w, r, random(directions, 2 * gates * H)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("input_forget", [0, 1])
def test_lstm_peepholes_and_clip_equal_onnxruntime(evaluate, runtime, direction, input_forget):
    directions = 2 if direction == "bidirectional" else 1
    x, w, r, b = _operands(4, directions)
    p = np.random.default_rng(1).standard_normal((directions, 3 * H)).astype(np.float32)
    operands = [x, w, r, b, None, None, None, p]
    attributes = {"hidden_size": H, "direction": direction, "clip": 2.0, "input_forget": input_forget}
    ours = evaluate("LSTM", operands, outputs=3, version=14, **attributes)
    theirs = runtime("LSTM", operands, outputs=3, version=14, **attributes)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


def test_lstm_clip_of_the_cell_state_is_not_covered(evaluate):
    with pytest.raises(NotCovered, match="clip on the cell state"):
        evaluate("LSTM", _operands(4), outputs=3, version=14, hidden_size=H, clip=0.1)


def test_gru_reset_before_the_product_equals_onnxruntime(evaluate, runtime):
    operands = _operands(3)
    attributes = {"hidden_size": H, "linear_before_reset": 0}
    for mine, expected in zip(
        evaluate("GRU", operands, outputs=2, version=14, **attributes),
        runtime("GRU", operands, outputs=2, version=14, **attributes),
        strict=True,
    ):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [
        ("Relu", [], []),
        ("Softsign", [], []),
        ("Softplus", [], []),
        ("LeakyRelu", [0.3], []),
        ("Elu", [0.7], []),
        ("HardSigmoid", [0.3], [0.4]),
        ("ScaledTanh", [1.5], [0.5]),
        ("ThresholdedRelu", [0.4], []),
        ("Affine", [0.5], [0.1]),
    ],
)
def test_recurrent_activations_equal_onnxruntime(evaluate, runtime, name, alpha, beta):
    operands = _operands(1)
    attributes = {"hidden_size": H, "activations": [name]}
    attributes |= {"activation_alpha": alpha} if alpha else {}
    attributes |= {"activation_beta": beta} if beta else {}
    (mine,) = evaluate("RNN", operands, version=14, **attributes)
    (expected,) = runtime("RNN", operands, version=14, **attributes)
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_activation_is_not_covered(evaluate):
    with pytest.raises(NotCovered, match="activation 'sine'"):
        evaluate("RNN", _operands(1), hidden_size=H, activations=["Sine"])
