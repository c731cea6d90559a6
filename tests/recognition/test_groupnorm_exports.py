"""What torch's two exporters make of GroupNorm and of its hand-written forms is recognised."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import LookAlike, Norm, find_norms

GROUPS, CHANNELS, EPSILON = 4, 8, 1e-3
ELEMENTS = CHANNELS // GROUPS * 30


class Unbiased(nn.Module):
    """``torch.var_mean`` divides by K − 1 unless told not to."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(x.shape[0], GROUPS, -1)
        variance, mean = torch.var_mean(rows, -1, keepdim=True)
        return ((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape)


class MeanOfSquares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows = x.view(n, GROUPS, c // GROUPS, h, w)
        mean = rows.mean((2, 3, 4), keepdim=True)
        variance = (rows * rows).mean((2, 3, 4), keepdim=True) - mean**2
        return ((rows - mean) * torch.rsqrt(variance + EPSILON)).view(n, c, h, w)


class ChannelsLast(nn.Module):
    """As Keras spells it: ``x·inv + (β − μ·inv)``."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(1, 1, 1, GROUPS, CHANNELS // GROUPS))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(n, h, w, GROUPS, c // GROUPS)
        mean = rows.mean((1, 2, 4), keepdim=True)
        variance = (rows - mean).pow(2).mean((1, 2, 4), keepdim=True)
        inverse = torch.rsqrt(variance + EPSILON) * self.gamma
        return (rows * inverse + (0.5 - mean * inverse)).reshape(n, h, w, c).permute(0, 3, 1, 2)


class LookAlikeNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(x.shape[0], GROUPS, -1)
        deviation = rows.std(-1, keepdim=True, unbiased=False)
        return ((rows - rows.mean(-1, keepdim=True)) / (deviation + EPSILON)).reshape(x.shape)


def module() -> nn.Module:
    norm = nn.GroupNorm(GROUPS, CHANNELS, EPSILON)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.eval()


def found_in(
    network: nn.Module, folder: Path, *, dynamo: bool, opset: int, dynamic: bool
) -> list[Norm | LookAlike]:
    path, x = folder / "model.onnx", torch.randn(2, CHANNELS, 6, 5)
    axes = {0: "batch", 2: "height", 3: "width"}
    shapes = ({axis: torch.export.Dim(name) for axis, name in axes.items()},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(
                network, (x,), path, dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
            )
        else:
            torch.onnx.export(
                network,
                (x,),
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=["x"],
                dynamic_axes={"x": axes} if dynamic else None,
            )
    return list(find_norms(Workspace(ir.load(path))))


@pytest.mark.parametrize(
    ("dynamo", "opset", "dynamic"),
    [(True, 18, False), (True, 18, True), (True, 21, True), (False, 11, False), (False, 17, True)],
)
def test_the_layer(tmp_path: Path, dynamo: bool, opset: int, dynamic: bool) -> None:
    network = module()
    (norm,) = found_in(
        nn.Sequential(network, nn.SiLU()), tmp_path, dynamo=dynamo, opset=opset, dynamic=dynamic
    )
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.groups, norm.channel_axis, norm.activation) == ("groupnorm", GROUPS, 1, "silu")
    assert norm.epsilon == pytest.approx(EPSILON, rel=1e-6)
    np.testing.assert_array_equal(norm.scale, network.weight.detach().numpy().astype(np.float64))
    np.testing.assert_array_equal(norm.shift, network.bias.detach().numpy().astype(np.float64))


@pytest.mark.parametrize(("dynamo", "opset"), [(True, 18), (False, 13)])
def test_an_unbiased_variance(tmp_path: Path, dynamo: bool, opset: int) -> None:
    (norm,) = found_in(Unbiased(), tmp_path, dynamo=dynamo, opset=opset, dynamic=False)
    assert isinstance(norm, Norm)
    ratio = (ELEMENTS - 1) / ELEMENTS
    assert norm.epsilon == pytest.approx(float(np.float32(EPSILON)) * ratio, rel=1e-12)
    np.testing.assert_allclose(norm.scale, np.sqrt(ratio), rtol=1e-12)


@pytest.mark.parametrize("network", [MeanOfSquares(), ChannelsLast()])
@pytest.mark.parametrize(("dynamo", "opset"), [(True, 18), (False, 17)])
def test_open_sizes(tmp_path: Path, network: nn.Module, dynamo: bool, opset: int) -> None:
    (norm,) = found_in(network, tmp_path, dynamo=dynamo, opset=opset, dynamic=True)
    assert isinstance(norm, Norm)
    assert (norm.kind, norm.groups, norm.channels, norm.channel_axis) == ("groupnorm", GROUPS, CHANNELS, 1)


def test_a_look_alike(tmp_path: Path) -> None:
    (found,) = found_in(LookAlikeNorm(), tmp_path, dynamo=False, opset=17, dynamic=False)
    assert isinstance(found, LookAlike)
    assert found.code == "NF401"
