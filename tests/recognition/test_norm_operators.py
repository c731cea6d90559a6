"""Normalisations that are one operator are read as what torch computes for them in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm, find_norms
from tests.checker import Checker

RNG = np.random.default_rng(7)
GAMMA, BETA = (RNG.standard_normal(12).astype(np.float32) for _ in range(2))
X = torch.from_numpy(RNG.standard_normal((2, 12, 4, 12)) * 3 + 1)


def norm_of(model: onnx.ModelProto) -> Norm:
    (norm,) = find_norms(Workspace(ir.from_proto(model)))
    assert isinstance(norm, Norm)
    return norm


def computed(norm: Norm, x: Tensor) -> Tensor:
    """A norm without groups, from its definition."""
    shape = [-1 if axis == norm.channel_axis else 1 for axis in range(x.dim())]
    centred = x if norm.kind == "rmsnorm" else x - x.mean(norm.axes, keepdim=True)
    deviation = (centred.square().mean(norm.axes, keepdim=True) + norm.epsilon).sqrt()
    scale, shift = (torch.tensor(a).reshape(shape) for a in (norm.scale, norm.shift))
    return centred / deviation * scale + shift


def test_layer_normalization_of_the_last_axis(check: Checker) -> None:
    model = check.model(
        "g (float[2, 12, 4, 12] x) => (float[2, 12, 4, 12] y) "
        "{ y = LayerNormalization <epsilon=0.01> (x, gamma, beta) }",
        {"gamma": GAMMA, "beta": BETA},
    )
    norm = norm_of(model)
    assert (norm.kind, norm.axes) == ("layernorm", (3,))
    gamma, beta = torch.from_numpy(GAMMA).double(), torch.from_numpy(BETA).double()
    expected = F.layer_norm(X, (12,), gamma, beta, float(np.float32(0.01)))
    torch.testing.assert_close(computed(norm, X), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("axis", "kind", "groups"), [(1, "groupnorm", 1), (-3, "groupnorm", 1), (2, "instancenorm", 12)]
)
def test_layer_normalization_from_an_axis_on(check: Checker, axis: int, kind: str, groups: int) -> None:
    size = X.shape[axis:]
    model = check.model(
        "g (float[2, 12, 4, 12] x) => (float[2, 12, 4, 12] y) "
        f"{{ y = LayerNormalization <axis={axis}, epsilon=0.01> (x, ones) }}",
        {"ones": np.ones(size, np.float32)},
    )
    norm = norm_of(model)
    assert (norm.kind, norm.groups, norm.channel_axis) == (kind, groups, 1)
    expected = F.layer_norm(X, list(size), eps=float(np.float32(0.01)))
    actual = F.group_norm(X, norm.groups, torch.tensor(norm.scale), None, norm.epsilon)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_layer_normalization_whose_mean_is_read(check: Checker) -> None:
    model = check.model(
        "g (float[2, 12, 4, 12] x) => (float[2, 12, 4, 12] y, float[2, 1, 1, 1] m) "
        "{ y, m = LayerNormalization <axis=1> (x, ones) }",
        {"ones": np.ones((12, 4, 12), np.float32)},
    )
    assert list(find_norms(Workspace(ir.from_proto(model)))) == []


def test_rms_normalization_subtracts_nothing(check: Checker) -> None:
    model = check.model(
        "g (float[2, 12, 4, 12] x) => (float[2, 12, 4, 12] y) "
        "{ y = RMSNormalization <epsilon=0.01> (x, gamma) }",
        {"gamma": GAMMA},
        opset=23,
        ir_version=10,
    )
    norm = norm_of(model)
    assert (norm.kind, norm.axes) == ("rmsnorm", (3,))
    expected = F.rms_norm(X, (12,), torch.from_numpy(GAMMA).double(), float(np.float32(0.01)))
    torch.testing.assert_close(computed(norm, X), expected, rtol=0, atol=1e-12)
