"""com.microsoft operators against onnxruntime's kernels, or their definition where the CPU has none."""

from __future__ import annotations

import numpy as np
import pytest

from normfold.evaluation import NotCovered

MS = "com.microsoft"


def _random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes"),
    [
        ("Gelu", [_random(3, 4)], {}),
        ("BiasGelu", [_random(3, 4), _random(4)], {}),
        ("FastGelu", [_random(3, 4), _random(4)], {}),
        ("FastGelu", [_random(3, 4)], {}),
        ("QuickGelu", [_random(3, 4)], {"alpha": 1.5}),
        ("FusedMatMul", [_random(2, 3, 4), _random(2, 5, 4)], {"transB": 1, "alpha": 0.5}),
        ("FusedMatMul", [_random(2, 4, 3), _random(2, 4, 5)], {"transA": 1}),
        ("FusedMatMul", [_random(3, 2, 4), _random(2, 4, 5)], {"transBatchA": 1}),
        ("FusedGemm", [_random(3, 4), _random(4, 5), _random(5)], {"activation": "Relu", "alpha": 0.5}),
        (
            "FusedGemm",
            [_random(3, 4), _random(4, 5), _random(5)],
            {"activation": "LeakyRelu", "activation_alpha": 0.25},
        ),
        ("FusedConv", [_random(1, 2, 5, 5), _random(3, 2, 3, 3), _random(3)], {"activation": "Relu"}),
        (
            "FusedConv",
            [_random(1, 2, 5, 5), _random(3, 2, 3, 3), None, _random(1, 3, 3, 3)],
            {"activation": "Relu"},
        ),
        (
            "FusedConv",
            [_random(1, 2, 5, 5), _random(3, 2, 3, 3)],
            {"activation": "Clip", "activation_params": [-0.5, 0.5]},
        ),
        ("SkipLayerNormalization", [_random(2, 3, 4), _random(2, 3, 4), _random(4)], {}),
        (
            "SkipLayerNormalization",
            [_random(2, 3, 4), _random(2, 3, 4), _random(4), _random(4) + 1, _random(4) - 1],
            {"epsilon": 0.1},
        ),
        ("SkipSimplifiedLayerNormalization", [_random(2, 3, 4), _random(2, 3, 4), _random(4)], {}),
    ],
)
def test_contrib_operators_equal_onnxruntime(evaluate, runtime, op_type, operands, attributes):
    (y,) = evaluate(op_type, operands, domain=MS, **attributes)
    (expected,) = runtime(op_type, operands, domain=MS, version=17, **attributes)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_skip_layer_norm_returns_the_sum(evaluate):
    x, skip, gamma, bias = _random(1, 2, 4), _random(2, 2, 4)[:1], _random(4), _random(4) + 1
    results = evaluate("SkipLayerNormalization", [x, skip, gamma, None, bias], domain=MS, outputs=4)
    np.testing.assert_allclose(results[3], x.astype(float) + skip + bias, rtol=1e-15)


@pytest.mark.torch
@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("activation", [0, 1])
def test_ms_group_norm_equals_torch(evaluate, channels_last, activation):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.standard_normal((2, 4, 3, 5)), rng.standard_normal(4), rng.standard_normal(4)
    (y,) = evaluate(
        "GroupNorm",
        [np.moveaxis(x, 1, -1) if channels_last else x, gamma, beta],
        domain=MS,
        groups=2,
        epsilon=0.125,
        channels_last=channels_last,
        activation=activation,
    )
    expected = torch.nn.functional.group_norm(
        torch.tensor(x), 2, torch.tensor(gamma), torch.tensor(beta), 0.125
    )
    expected = torch.nn.functional.silu(expected) if activation else expected
    y = np.moveaxis(y, -1, 1) if channels_last else y
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-13)


def test_an_unknown_fused_activation_is_not_covered(evaluate):
    with pytest.raises(NotCovered, match="Sine") as caught:
        evaluate("FusedConv", [_random(1, 1, 3), _random(1, 1, 1)], domain=MS, activation="Sine")
    assert (caught.value.op_type, caught.value.domain) == ("FusedConv", MS)


def test_an_unknown_contrib_operator_is_not_covered(evaluate):
    with pytest.raises(NotCovered, match=r"com\.microsoft\.MultiHeadAttention"):
        evaluate("MultiHeadAttention", [_random(1, 2, 4)], domain=MS, num_heads=2)
