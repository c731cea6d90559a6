"""Normalisations against torch in float64, and BatchNormalization in every opset."""

from __future__ import annotations

import numpy as np
import pytest

from normfold.evaluation import NotCovered

EPS = 0.0137
EPS32 = float(np.float32(EPS))


@pytest.fixture
def operands():
    rng = np.random.default_rng(0)
    c = 4
    return (
        rng.standard_normal((3, c, 5, 2)) + 1,
        rng.standard_normal(c),
        rng.standard_normal(c),
        rng.standard_normal(c),
        rng.uniform(0.1, 2, c),
    )


def _by_channel(parameter):
    return parameter.reshape(-1, 1, 1)


@pytest.mark.parametrize(
    ("version", "attributes"),
    [
        (1, {"is_test": 1}),
        (6, {"is_test": 1}),
        (7, {}),
        (9, {}),
        (13, {}),
        (14, {}),
        (15, {"training_mode": 0}),
    ],
)
def test_inference_batch_norm_of_every_opset(evaluate, operands, version, attributes):
    x, scale, bias, mean, var = operands
    (y,) = evaluate("BatchNormalization", operands, version=version, epsilon=EPS, **attributes)
    shape = (-1, 1, 1)
    expected = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + EPS32) * scale.reshape(
        shape
    ) + bias.reshape(shape)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("version", "outputs", "attributes"),
    [
        (1, 1, {}),
        (6, 5, {"is_test": 0}),
        (7, 5, {}),
        (9, 3, {}),
        (13, 5, {}),
        (14, 3, {"training_mode": 1}),
        (15, 1, {"training_mode": 1}),
    ],
)
def test_training_batch_norm_of_every_opset(evaluate, operands, version, outputs, attributes):
    x, scale, bias, mean, var = operands
    results = evaluate(
        "BatchNormalization",
        operands,
        version=version,
        outputs=outputs,
        epsilon=EPS,
        momentum=0.75,
        **attributes,
    )
    batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    y = (x - _by_channel(batch_mean)) / np.sqrt(_by_channel(batch_var) + EPS32)
    expected = [
        y * _by_channel(scale) + _by_channel(bias),
        0.75 * mean + 0.25 * batch_mean,
        0.75 * var + 0.25 * batch_var,
        batch_mean,
        batch_var,
    ]
    for result, wanted in zip(results, expected, strict=False):
        np.testing.assert_allclose(result, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("version", [6, 7])
def test_batch_norm_without_spatial_has_parameters_per_position(evaluate, version):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4))
    scale, bias, mean = (rng.standard_normal((3, 4)) for _ in range(3))
    var = rng.uniform(0.5, 1, (3, 4))
    attributes = {"is_test": 1} if version == 6 else {}
    (y,) = evaluate(
        "BatchNormalization", [x, scale, bias, mean, var], version=version, spatial=0, **attributes
    )
    expected = (x - mean) / np.sqrt(var + float(np.float32(1e-5))) * scale + bias
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


def test_batch_norm_keeps_accuracy_under_a_large_mean(evaluate):
    ones, zeros = np.ones(1), np.zeros(1)
    x = 1e9 + np.array([[0.0], [0.25]])
    (y,) = evaluate("BatchNormalization", [x, ones, zeros, np.full(1, 1e9), ones], epsilon=0.0)
    np.testing.assert_array_equal(y, [[0.0], [0.25]])


@pytest.mark.torch
def test_instance_norm_equals_torch(evaluate, operands):
    torch = pytest.importorskip("torch")
    x, scale, bias, *_ = operands
    (y,) = evaluate("InstanceNormalization", [x, scale, bias], epsilon=EPS)
    expected = torch.nn.functional.instance_norm(
        torch.tensor(x), weight=torch.tensor(scale), bias=torch.tensor(bias), eps=EPS32
    )
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("version", [18, 21])
def test_group_norm_of_both_opsets_equals_torch(evaluate, operands, version):
    torch = pytest.importorskip("torch")
    x, scale, bias, *_ = operands
    if version < 21:
        scale, bias = scale[:2], bias[:2]
    (y,) = evaluate("GroupNormalization", [x, scale, bias], version=version, num_groups=2, epsilon=EPS)
    spread = (lambda p: np.repeat(p, 2)) if version < 21 else (lambda p: p)
    expected = torch.nn.functional.group_norm(
        torch.tensor(x), 2, torch.tensor(spread(scale)), torch.tensor(spread(bias)), EPS32
    )
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_group_norm_refuses_parameters_of_the_other_opset(evaluate, operands):
    x, scale, bias, *_ = operands
    with pytest.raises(NotCovered, match=r"expected \(2,\)"):
        evaluate("GroupNormalization", [x, scale, bias], version=18, num_groups=2)


@pytest.mark.torch
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_layer_norm_and_its_statistics_equal_torch(evaluate, operands, axis):
    torch = pytest.importorskip("torch")
    x = operands[0]
    shape = x.shape[axis:]
    rng = np.random.default_rng(1)
    scale, bias = rng.standard_normal(shape), rng.standard_normal(shape)
    y, mean, inverse = evaluate("LayerNormalization", [x, scale, bias], outputs=3, axis=axis, epsilon=EPS)
    expected = torch.nn.functional.layer_norm(
        torch.tensor(x), shape, torch.tensor(scale), torch.tensor(bias), EPS32
    )
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)
    axes = tuple(range(axis % x.ndim, x.ndim))
    np.testing.assert_allclose(mean, x.mean(axes, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(x.var(axes, keepdims=True) + EPS32), rtol=1e-13)


@pytest.mark.torch
def test_rms_norm_equals_torch(evaluate, operands):
    torch = pytest.importorskip("torch")
    x = operands[0]
    scale = np.random.default_rng(1).standard_normal(x.shape[2:])
    (y,) = evaluate("RMSNormalization", [x, scale], version=23, axis=2, epsilon=EPS)
    expected = torch.nn.functional.rms_norm(torch.tensor(x), x.shape[2:], torch.tensor(scale), EPS32)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("size", [3, 4, 5])
def test_local_response_norm_of_odd_and_even_size(evaluate, operands, size):
    torch = pytest.importorskip("torch")
    x = operands[0]
    attributes = {"alpha": 0.5, "beta": 0.25, "bias": 2.0}
    (y,) = evaluate("LRN", [x], size=size, **attributes)
    square, channels = x * x, x.shape[1]
    total = np.stack(
        [
            square[:, max(0, c - (size - 1) // 2) : min(channels, c + size // 2 + 1)].sum(1)
            for c in range(channels)
        ],
        axis=1,
    )
    np.testing.assert_allclose(y, x / (2 + 0.5 / size * total) ** 0.25, rtol=1e-13)
    if size % 2:
        expected = torch.nn.functional.local_response_norm(torch.tensor(x), size, 0.5, 0.25, 2.0)
        np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm_leaves_a_zero_vector_zero(evaluate, p):
    x = np.array([[3.0, -4.0], [0.0, 0.0]])
    (y,) = evaluate("LpNormalization", [x], p=p)
    length = 7 if p == 1 else 5
    np.testing.assert_allclose(y, [[3 / length, -4 / length], [0, 0]], rtol=1e-15)
