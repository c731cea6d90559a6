"""Static findings on what torch's exporters really write, on trained networks and on healthy models."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from models import export as zoo_export  # noqa: E402
from models import real  # noqa: E402
from models.lenet import HandwrittenBatchNorm  # noqa: E402
from models.zoo import ZOO  # noqa: E402
from normfold.consistency.static import static_findings  # noqa: E402
from normfold.folding import fold_model  # noqa: E402
from normfold.reporting.report import Finding  # noqa: E402

pytestmark = pytest.mark.torch

TRAINED = Path(__file__).parents[2] / "models" / "trained"
Export = Callable[..., onnx.ModelProto]


class Net(nn.Module):
    """(conv, BN, relu) twice, dropout, linear."""

    def __init__(self, *norm: Any, **options: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 6, 3, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(4, *norm, **options), nn.BatchNorm2d(6, *norm, **options)
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm1(self.first(x)))
        x = torch.relu(self.norm2(self.second(x)))
        return self.last(self.dropout(x.mean((2, 3))))


def trained(*norm: Any, steps: int = 30, **options: Any) -> nn.Module:
    """After a few steps on random data."""
    torch.manual_seed(0)
    module = Net(*norm, **options).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(steps):
        x = torch.randn(16, 3, 8, 8) + 0.5
        loss = nn.functional.cross_entropy(module(x), (x.mean((1, 2, 3)) > 0.5).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def dynamo(module: nn.Module, **options: Any) -> onnx.ModelProto:
    program = torch.onnx.export(module, (torch.randn(2, 3, 8, 8),), dynamo=True, verbose=False, **options)
    assert program is not None
    return program.model_proto


def torchscript(module: nn.Module, **options: Any) -> onnx.ModelProto:
    stream = io.BytesIO()
    options = {"opset_version": 17, **options}
    torch.onnx.export(module, (torch.randn(2, 3, 8, 8),), stream, dynamo=False, verbose=False, **options)
    return onnx.load_from_string(stream.getvalue())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The exporters warn of what these tests are about."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(disabled)


def found(proto: onnx.ModelProto) -> list[Finding]:
    return static_findings(ir.from_proto(proto))


def grave(findings: list[Finding]) -> list[tuple[str, str]]:
    return sorted({(f.code, f.severity) for f in findings if f.severity != "info"})


PRESERVE = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
TRAINING = {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False}


class TestTrainedInEvaluation:
    """Almost each of the defects below: the same network, exported as it should be."""

    @pytest.mark.parametrize(
        ("exporter", "options"),
        [(dynamo, {}), (dynamo, {"optimize": False}), (torchscript, {}), (torchscript, PRESERVE)],
    )
    def test_nothing_grave(self, exporter: Export, options: dict[str, Any]) -> None:
        assert grave(found(exporter(trained(), **options))) == []


class TestTrainingMode:
    @pytest.mark.parametrize("optimize", [True, False])
    def test_metadata_of_the_default_exporter(self, optimize: bool) -> None:
        findings = found(dynamo(trained().train(), optimize=optimize))
        assert grave(findings) == [("NF302", "error"), ("NF303", "error")]
        assert sum(f.code == "NF303" for f in findings) == 2

    @pytest.mark.parametrize("opset", [9, 13])
    def test_torchscript_by_number_of_outputs(self, opset: int) -> None:
        codes = {f.code for f in found(torchscript(trained(), **TRAINING, opset_version=opset))}
        assert "NF301" in codes
        assert ("NF302" in codes) == (opset >= 12)

    @pytest.mark.parametrize("opset", [14, 17])
    def test_torchscript_by_attribute(self, opset: int) -> None:
        findings = found(torchscript(trained(), **TRAINING, opset_version=opset))
        assert grave(findings) == [("NF301", "error"), ("NF302", "error")]
        assert sum(f.code == "NF301" for f in findings) == 2

    @pytest.mark.parametrize("exporter", [dynamo, torchscript])
    def test_no_running_statistics(self, exporter: Export) -> None:
        module = trained(track_running_stats=False)
        assert grave(found(exporter(module))) == [("NF301", "error")]

    @pytest.mark.parametrize("exporter", [dynamo, torchscript])
    @pytest.mark.parametrize("tracks", [True, False])
    def test_instance_norm_is_no_batch_norm(self, exporter: Export, tracks: bool) -> None:
        module = trained()
        module.norm1 = nn.InstanceNorm2d(4, affine=True, track_running_stats=tracks)
        module.norm2 = nn.InstanceNorm2d(6, affine=True, track_running_stats=tracks)
        if tracks:
            module.train()
            module(torch.randn(8, 3, 8, 8) + 1)
            module.eval()
        assert grave(found(exporter(module))) == []

    @pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
    def test_standardised_weights_are_no_training(self, exporter: Any) -> None:
        path = zoo_export.export("standardised", exporter)
        assert grave(static_findings(ir.load(path))) == []


class TestUntrained:
    def test_never_trained(self) -> None:
        torch.manual_seed(0)
        findings = found(dynamo(Net().eval(), optimize=False))
        assert grave(findings) == [("NF304", "error")]

    def test_one_layer_lost_its_buffers(self) -> None:
        module = trained()
        state = {k: v for k, v in module.state_dict().items() if not k.startswith("norm2.running")}
        again = Net()
        again.load_state_dict(state, strict=False)
        findings = found(dynamo(again.eval(), optimize=False))
        assert grave(findings) == [("NF304", "warn")]

    @pytest.mark.parametrize("exporter", [dynamo, torchscript])
    def test_hand_written(self, exporter: Export) -> None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), HandwrittenBatchNorm(4, 4)).eval()
        assert grave(found(exporter(module))) == [("NF304", "error")]
        module.train()(torch.randn(8, 3, 8, 8))
        assert grave(found(exporter(module.eval()))) == []

    def test_one_step_is_training(self) -> None:
        assert grave(found(dynamo(trained(steps=1), optimize=False))) == []


class TestEpsilon:
    @pytest.mark.parametrize("optimize", [True, False], ids=["folded by the exporter", "kept"])
    def test_given_as_momentum(self, optimize: bool) -> None:
        findings = [f for f in found(dynamo(trained(0.8), optimize=optimize)) if f.severity == "error"]
        assert [f.code for f in findings] == ["NF308", "NF308"]
        assert "nn.BatchNorm2d(4, 0.8)" in findings[0].message
        assert "nn.BatchNorm2d(6, 0.8)" in findings[1].message

    def test_a_real_momentum(self) -> None:
        assert grave(found(dynamo(trained(momentum=0.8), optimize=False))) == []


def test_folded_by_the_exporter() -> None:
    module = trained()
    assert [f.code for f in found(dynamo(module))] == ["NF319", "NF319"]
    assert [f.code for f in found(dynamo(module, optimize=False))] == []


class TestHealthy:
    @pytest.mark.parametrize("path", sorted(TRAINED.glob("*.onnx")), ids=lambda path: path.stem)
    def test_trained_lenet(self, path: Path) -> None:
        assert grave(static_findings(ir.load(path))) == []

    @pytest.mark.parametrize("name", sorted(ZOO))
    def test_zoo_and_what_folds_make_of_it(self, name: str) -> None:
        model = ir.load(zoo_export.export(name, *zoo_export.variants(name)[-1]))
        assert grave(static_findings(model)) == []
        assert grave(static_findings(fold_model(model).model)) == []

    @pytest.mark.real
    @pytest.mark.parametrize("name", sorted(real.available()))
    def test_models_that_others_ship(self, name: str) -> None:
        assert grave(static_findings(ir.load(real.path_or_skip(name)))) == []
