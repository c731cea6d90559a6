"""Torch modules checked and exported, and left as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import normfold.torch  # noqa: E402
from models.lenet import LeNet  # noqa: E402
from normfold.errors import InputError  # noqa: E402


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
    )
    net[1].running_mean.uniform_(-1, 1)
    net[1].running_var.uniform_(0.5, 2)
    return net


IMAGES = np.random.default_rng(0).normal(size=(8, 2, 6, 6)).astype(np.float32)


def test_module_and_graphs_agree() -> None:
    report = normfold.torch.check(network(), IMAGES)
    assert report.agree
    (output,) = report.outputs
    assert output.exported < 1e-6 and output.folded < 1e-12
    assert output.train is not None and output.train > 0.05
    assert {b.name for b in report.buffers} == {"1.running_mean", "1.running_var"}
    assert all(b.difference == 0 for b in report.buffers)


def test_training_differs_by_batch_statistics_alone() -> None:
    net = network()
    report = normfold.torch.check(net, IMAGES)
    x = net[0](torch.from_numpy(IMAGES))
    m, v = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    train = torch.relu((x - m) / (v + 1e-5).sqrt()).flatten(1)
    reference = net.eval()(torch.from_numpy(IMAGES))
    expected = ((train - reference).abs().max() / reference.abs().max()).item()
    assert report.outputs[0].train == pytest.approx(expected, rel=1e-4)


def test_module_is_as_before() -> None:
    net = network()
    net.train()
    net[1].eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    identities = {k: id(v) for k, v in net.named_buffers()}
    modes = [m.training for m in net.modules()]
    random = torch.random.get_rng_state()
    normfold.torch.check(net, torch.from_numpy(IMAGES))
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert {k: id(v) for k, v in net.named_buffers()} == identities
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)


def test_module_is_as_before_where_it_fails() -> None:
    net = network().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(InputError, match="does not run"):
        normfold.torch.check(net, torch.zeros(1, 3, 6, 6))
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Registers(torch.nn.BatchNorm2d):
    """Registers a buffer and replaces another while it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.register_buffer("seen", torch.ones(1))
        self.running_mean = self.running_mean + 0.0
        return super().forward(x)


class Raises(torch.nn.BatchNorm2d):
    """Fails in one of both modes, after its statistics were updated."""

    fails_in_training = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.training == self.fails_in_training:
            raise RuntimeError("out of order")
        return y


class Shared(torch.nn.Module):
    """One normalisation under two names, run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(2)
        self.alias = self.norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.alias(torch.relu(self.norm(x)))


def snapshot(module: torch.nn.Module) -> tuple[object, ...]:
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return (
        [part.training for part in module.modules()],
        {name: id(buffer) for name, buffer in buffers.items()},
        {name: buffer.tolist() for name, buffer in buffers.items()},
        {name: (id(p), p.tolist()) for name, p in module.named_parameters()},
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        Shared,
        Registers,
        Raises,
        lambda **_: torch.nn.BatchNorm2d(2, momentum=None),
        lambda **_: torch.nn.BatchNorm2d(2, track_running_stats=False),
        lambda **_: torch.nn.SyncBatchNorm(2),
    ],
    ids=["shared", "registers", "raises", "cumulative", "no statistics", "synchronised"],
)
def test_every_kind_of_layer_is_as_before(make: Callable[..., torch.nn.Module], training: bool) -> None:
    module = make() if make is Shared else make(num_features=2)
    module.train(training)
    before = snapshot(module)
    report = normfold.torch.check(module, IMAGES)
    assert snapshot(module) == before
    assert report.agree
    assert (report.train_skipped is not None) == isinstance(module, Raises)


def test_export_that_fails_leaves_the_module_as_before(tmp_path: Path) -> None:
    module = Raises(2).train()
    module.fails_in_training = False
    before = snapshot(module)
    with pytest.raises(InputError, match="cannot export the module: out of order"):
        normfold.torch.export(module, (torch.from_numpy(IMAGES),), tmp_path / "m.onnx")
    assert snapshot(module) == before and not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(kind: torch.dtype) -> None:
    module = network().to(kind)
    report = normfold.torch.check(module, torch.from_numpy(IMAGES).to(kind))
    assert report.agree
    assert all(b.difference is not None and b.difference < 1e-6 for b in report.buffers)


def test_lazy_module() -> None:
    with pytest.raises(InputError, match="has never been run"):
        normfold.torch.check(torch.nn.LazyBatchNorm2d(), IMAGES)


def test_graph_of_another_state_is_named() -> None:
    net = network()
    model = normfold.torch.to_onnx(net.eval(), (torch.from_numpy(IMAGES),), optimize=False)
    net[1].running_var.mul_(1.5)
    report = normfold.torch.check(net, IMAGES, model)
    assert not report.agree
    assert {f.code for f in report.findings} == {"NF355"}
    assert any("1.running_var" in f.message for f in report.findings)
    assert not any("1.running_mean" in f.message for f in report.findings)


def test_batch_that_torch_refuses_to_train_on() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    report = normfold.torch.check(net, np.zeros((1, 3), np.float32))
    assert report.train_skipped is not None and report.outputs[0].train is None
    assert report.agree


def test_export_folds_and_verifies(tmp_path: Path) -> None:
    net = network().train()
    path = tmp_path / "model.onnx"
    result = normfold.torch.export(net, (torch.from_numpy(IMAGES),), path, optimize=False)
    assert net.training
    assert result.changed and result.report.verification.verdict == "pass"
    assert [node.op_type for node in ir.load(path).graph][:2] == ["Conv", "Relu"]


def test_weights_are_loaded_without_running_code(tmp_path: Path) -> None:
    net = torch.nn.BatchNorm2d(3)
    net.running_mean.fill_(7.0)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    torch.save(net, tmp_path / "pickle.pt")
    assert normfold.torch.load_module("models.lenet:LeNet")
    with pytest.raises(InputError, match=r"pickle\.pt"):
        normfold.torch.load_module("models.lenet:LeNet", tmp_path / "pickle.pt")
    with pytest.raises(InputError, match="missing"):
        normfold.torch.load_module("models.lenet:LeNet", tmp_path / "missing.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str, tmp_path: Path) -> None:
    state = {prefix + key: value for key, value in LeNet().state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    loaded = normfold.torch.load_module("models.lenet:LeNet", tmp_path / "w.pt").state_dict()
    assert all(torch.equal(loaded[key.removeprefix(prefix)], value) for key, value in state.items())


def test_weights_of_a_wrapper_itself(tmp_path: Path) -> None:
    """Its own names begin alike, and nothing is taken off."""
    wrapped = torch.nn.DataParallel(LeNet())
    torch.save(wrapped.state_dict(), tmp_path / "w.pt")
    loaded = normfold.torch.load_module(f"{__name__}:parallel", tmp_path / "w.pt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in wrapped.state_dict().items())


def parallel() -> torch.nn.Module:
    return torch.nn.DataParallel(LeNet())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "running" not in k},
            r"8 keys missing: .*running_mean, .*…$",
        ),
        (
            lambda s: {"module." + k if k.endswith("weight") else k: v for k, v in s.items()},
            "does not have: m",
        ),
        (lambda s: {**s, "more.weight": torch.zeros(2)}, r"1 key that it does not have: more\.weight$"),
        (lambda s: {"epoch": 3, "state_dict": s}, "save what it holds as 'state_dict' alone"),
        (lambda s: {k: v.flatten() for k, v in s.items()}, r"Error\(s\) .* size mismatch for"),
        (lambda s: [1, 2], "holds a list, not a state dictionary"),
        (lambda s: {3: torch.zeros(2)}, "holds a dict, not a state dictionary"),
        (lambda s: LeNet(), r"holds no state dictionary of tensors alone"),
    ],
    ids=["missing", "half", "more", "checkpoint", "shapes", "list", "numbers", "module"],
)
def test_weights_that_do_not_fit_are_told_in_one_line(
    change: Callable[[dict[str, torch.Tensor]], object], said: str, tmp_path: Path
) -> None:
    torch.save(change(LeNet().state_dict()), tmp_path / "w.pt")
    with pytest.raises(InputError, match=said) as raised:
        normfold.torch.load_module("models.lenet:LeNet", tmp_path / "w.pt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("factory", ["models.lenet", "models.lenet:Nothing", "nowhere.at.all:f", "os:getcwd"])
def test_factories_that_give_no_module(factory: str) -> None:
    with pytest.raises(InputError, match="--torch"):
        normfold.torch.load_module(factory)
