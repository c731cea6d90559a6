"""The zoo's networks are fit to test with: random, sensitive to their input, and merged exactly."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.modules.batchnorm import _NormBase  # noqa: E402

from models.merging import taps, total  # noqa: E402
from models.randomise import randomise  # noqa: E402
from models.zoo import ZOO  # noqa: E402

pytestmark = pytest.mark.torch

NAMES = sorted(ZOO)
MERGEABLE = [name for name in NAMES if ZOO[name].mergeable]


def outputs(network: Any, inputs: Any) -> list[Any]:
    with torch.no_grad():
        result = network(*inputs)
    return [result] if torch.is_tensor(result) else list(result)


@pytest.mark.parametrize("name", NAMES)
def test_no_normalisation_is_an_identity(name: str) -> None:
    for layer in ZOO[name].build().modules():
        if isinstance(layer, _NormBase) and layer.running_var is not None:
            scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            shift = layer.bias - layer.running_mean * scale
            assert (scale < 0).any()
            assert (scale - 1).abs().max() > 0.05
            assert shift.abs().max() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_of_order_one_and_depend_on_the_input(name: str) -> None:
    entry = ZOO[name]
    found = outputs(entry.build(), entry.example(batch=4))
    assert len(found) == len(entry.outputs)
    for value in found:
        largest = value.abs().max()
        assert 0.01 < largest < 100
        assert (value - value[0]).abs().max() > 0.05 * largest


@pytest.mark.parametrize("name", NAMES)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    first, second, other = ZOO[name].build(), ZOO[name].build(), ZOO[name].build(seed=1)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert any(not torch.equal(value, other.state_dict()[key]) for key, value in first.state_dict().items())


def test_these_families_are_merged_at_source_level() -> None:
    assert MERGEABLE == ["acnet", "causal", "even_kernels", "large_kernel", "mixer", "mobileone", "repvgg"]


@pytest.mark.parametrize("name", MERGEABLE)
def test_merged_network_computes_the_same(name: str) -> None:
    entry = ZOO[name]
    inputs = [value.double() for value in entry.example(batch=2)]
    branched = outputs(entry.build().double(), inputs)
    merged = outputs(entry.merged(dtype=torch.float64), inputs)
    for expected, actual in zip(branched, merged, strict=True):
        assert (expected - actual).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("name", MERGEABLE)
def test_merged_network_has_fewer_convolutions_and_norms(name: str) -> None:
    def count(network: nn.Module) -> int:
        kinds = (nn.Conv1d, nn.Conv2d, _NormBase)
        return sum(isinstance(layer, kinds) for layer in network.modules())

    assert count(ZOO[name].merged()) < count(ZOO[name].build())


CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PADS = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(3, 1, 1, 1), (1, 1, 0, 0)], id="odd"),
        pytest.param([(4, 1, 1, 2), (2, 1, 0, 1)], id="even"),
        pytest.param([(3, 1, 2, 0), (2, 2, 2, 0)], id="causal"),
        pytest.param([(3, 2, 2, 2), (3, 3, 3, 3)], id="dilations without a common step"),
        pytest.param([(3, 2, 2, 2), (1, 1, 0, 0)], id="dilation kept"),
    ],
)
def test_sum_of_branches_is_one_convolution(
    rank: int, groups: int, stride: int, shapes: list[tuple[int, int, int, int]]
) -> None:
    """Each shape is (kernel, dilation, zeros before, zeros after) on every spatial axis."""
    torch.manual_seed(0)
    branches = [
        nn.Sequential(
            PADS[rank]((before, after) * rank, 0.0),
            CONVS[rank](6, 6, kernel, stride=stride, dilation=dilation, groups=groups),
        ).double()
        for kernel, dilation, before, after in shapes
    ]
    x = torch.randn(2, 6, *[9] * rank, dtype=torch.float64)
    merged = total(taps(branch) for branch in branches).module()
    with torch.no_grad():
        assert torch.allclose(merged(x), sum(branch(x) for branch in branches), rtol=0, atol=1e-13)


def test_a_branch_of_another_stride_does_not_merge() -> None:
    with pytest.raises(ValueError, match="stride"):
        taps(nn.Conv2d(2, 2, 1)) + taps(nn.Conv2d(2, 2, 1, stride=2))


def test_randomise_keeps_the_variance_of_a_transposed_convolution() -> None:
    layer = randomise(nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1, groups=4, bias=False), 0)
    with torch.no_grad():
        assert 0.8 < layer(torch.randn(4, 64, 12, 12)).var() < 1.25
