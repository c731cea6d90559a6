"""Folds verified and timed on CUDA: ``python -m benchmarks cuda -o docs/cuda.md``.

Needs onnxruntime-gpu and a device; without, it says so and exits with 3.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

import normfold
from models import real
from models.families.diffusion import DiffusionUNet
from normfold.benchmarking import BenchOptions
from normfold.commands.bench import bench
from normfold.errors import Inconclusive, NormfoldError
from normfold.reporting.report import Report
from normfold.runtime.client import Runtime, write_model
from normfold.runtime.execution_providers import CUDA, provider_name, short_name
from normfold.verification.endtoend.providers import run_model

NHWC: Mapping[str, str] = {"prefer_nhwc": "1"}
FORMS = ("ms-groupnorm", "instancenorm-bn", "layernorm", "native")
"""What is written for ``ort-cuda`` in float16, first choice first."""

_INTRODUCTION = """# Folds on a device

Written by `python -m benchmarks cuda` on {device}, onnxruntime {version}, provider {provider}.
Each model is folded for it and verified there with TF32 off; errors are against the float64 reference.
*Nodes* are those that the provider was given and, after the sign, those that went elsewhere, with their
operators. *Spread* is the largest difference between three runs of the original, *TF32* the error of original
and folded model with TF32 on, which decides nothing. *Speed* is original by folded with its 95 % interval,
inputs and outputs kept on the device, the provider set up alike for both.
"""

_COLUMNS = """
| model | verdict | nodes, original | nodes, folded | e0 | e1 | bound | spread | TF32 | speed |
|---|---|---|---|---|---|---|---|---|---|
"""

_NORMS = """
## Forms of GroupNorm

A U-Net in float16 as torch exports it: 10 GroupNorms of (2, 320, 64, 64) to (2, 640, 64, 64), nine with SiLU.
The first row has the form that `--target ort-cuda` takes.
"""


@dataclass(frozen=True)
class Case:
    """A model and how it is folded and run.

    Attributes:
        name: what the table calls it.
        path: the model file.
        form: as for ``--groupnorm``.
        options: of the provider.
    """

    name: str
    path: Path
    form: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What was seen of one model."""

    name: str
    provider: str
    report: Report
    speed: str

    def __str__(self) -> str:
        verification = self.report.verification
        errors = [row for row in verification.rounding if row["provider"] == short_name(self.provider)]
        worst = max(errors, key=lambda row: (row["e1"] or 0.0) / (row["bound"] or 1.0), default={})
        cells = [
            self.name,
            "nothing to fold" if self.report.summary.get("changed") is False else verification.verdict or "–",
            *(self._assignment(model) for model in ("original", "folded")),
            *(_number(worst.get(key)) for key in ("e0", "e1", "bound")),
            _number(max(self._spread().values(), default=None)),
            " / ".join(_number(error) for error in self._relaxed()) or "–",
            self.speed,
        ]
        return f"| {' | '.join(cells)} |"

    def _runs(self, model: str) -> Iterator[Mapping[str, Any]]:
        for row in self.report.verification.providers:
            if row["provider"] == short_name(self.provider) and row["model"] == model:
                yield row

    def _spread(self) -> Mapping[str, float]:
        return next((row["spread"] for row in self._runs("original") if row.get("spread")), {})

    def _assignment(self, model: str) -> str:
        run = next((row for row in self._runs(model) if "tf32" not in row), None)
        if run is None or run["status"] != "ok":
            return "–" if run is None else f"{run['status']}: {run['detail']}"
        elsewhere = Counter(node.partition(":")[0] for node in run["fallbacks"])
        listed = ", ".join(f"{count} {operator}" for operator, count in elsewhere.most_common())
        return f"{run['assigned'].get(self.provider, 0)} + {sum(elsewhere.values())}" + (
            f" ({listed})" if listed else ""
        )

    def _relaxed(self) -> list[float]:
        return [
            max(row["tf32"].values())
            for model in ("original", "folded")
            for row in self._runs(model)
            if row.get("tf32")
        ]


def seen(case: Case, folder: Path, provider: str) -> Row:
    """Folds, verifies and times one model."""
    output = folder / "folded.onnx"
    options = {provider: case.options} if case.options else {}
    try:
        report = normfold.fold(
            case.path, output, providers=[provider], provider_options=options, groupnorm=case.form
        ).report
    except NormfoldError as error:
        if error.report is None:
            raise
        return Row(case.name, provider, error.report, "–")
    timed = bench(case.path, output, BenchOptions(providers=(provider,), provider_options=options))
    speeds = [
        f"{row.speedup:.2f} ({row.interval[0]:.2f} to {row.interval[1]:.2f})" for row in timed.measurements
    ]
    return Row(case.name, provider, report, ", ".join(speeds) or "–")


def whole_models(given: Sequence[Path]) -> list[Case]:
    """The models to look at: those given, or the real ones that are there and onnx's own."""
    if given:
        return [Case(path.stem, path) for path in given]
    found = {**{name: real.path(name) for name in real.available()}, **real.light()}
    return [Case(name, path) for name, path in found.items()]


def norms(unet: Path, provider: str) -> list[Case]:
    """The U-Net in the target's form and in each, with and without channels last inside of onnxruntime."""
    settings = {"": {}, ", prefer_nhwc": NHWC} if provider == CUDA else {"": {}}
    return [
        Case(f"{form or '`--target`'}{suffix}", unet, form, options)
        for suffix, options in settings.items()
        for form in (None, *FORMS)
    ]


def write_unet(path: Path, width: int = 320, size: int = 64, groups: int = 32) -> Path:
    """A diffusion U-Net in float16, as torch's default exporter writes it.

    Inputs are images ``[2, 4, size, size]`` and an embedding ``[2, 16]`` of the time.

    Args:
        path: where to.
        width: channels of the outer blocks; the inner ones have twice as many.
        size: height and width of the images.
        groups: of each GroupNorm.
    """
    import torch

    from models.export import quiet

    torch.manual_seed(0)
    network = DiffusionUNet(width, groups=groups).half().eval()
    inputs = torch.zeros(2, 4, size, size).half(), torch.zeros(2, 16).half()
    with quiet():
        torch.onnx.export(
            network,
            inputs,
            path,
            dynamo=True,
            external_data=False,
            input_names=["images", "time"],
            verbose=False,
        )
    return path


def obstacle(provider: str) -> str | None:
    """Why nothing runs on a provider here: it is not registered, or takes no node of a model."""
    if provider not in onnxruntime.get_available_providers():
        return f"{provider} is not registered in onnxruntime {onnxruntime.__version__}"
    graph = "g (float[4, 4] x) => (float[4, 4] y) { y = MatMul(x, x) }"
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {graph}')
    with Runtime() as runtime:
        path = write_model(model, runtime.folder, "probe")
        batch = {"x": np.eye(4, dtype=np.float32)}
        outcome = run_model(runtime, path, provider, [batch], ["y"], optimize=False)
    return None if outcome.status == "ok" else f"{provider}: {outcome.detail}"


def main(arguments: Sequence[str]) -> int:
    """Verify, time, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cuda", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="model files; by default the real ones")
    parser.add_argument("--norms", action="store_true", help="the forms of GroupNorm alone")
    parser.add_argument("-o", "--output", type=Path, help="write the tables to this file")
    parser.add_argument(
        "--device", default="an unnamed device", help="what the device is called in the table"
    )
    parser.add_argument("--ep", default="cuda", help="execution provider")
    given = parser.parse_args(arguments)
    provider = provider_name(given.ep)
    missing = obstacle(provider)
    if missing is not None:
        print(f"nothing was measured: {missing}")
        return Inconclusive.exit_code
    page = _Page()
    version = onnxruntime.__version__
    page.add(_INTRODUCTION.format(device=given.device, version=version, provider=provider))
    with tempfile.TemporaryDirectory() as folder:
        if not given.models:
            page.add(_NORMS)
            unet = write_unet(Path(folder) / "unet.onnx")
            page.table(norms(unet, provider), Path(folder), provider)
        if not given.norms:
            page.add("\n## Models\n")
            page.table(whole_models(given.models), Path(folder), provider)
    if given.output:
        given.output.write_text(page.text, encoding="utf-8")
    return 0


class _Page:
    """What is printed, and kept for the file."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, text: str) -> None:
        print(text, end="", flush=True)
        self.text += text

    def table(self, cases: Iterable[Case], folder: Path, provider: str) -> None:
        self.add(_COLUMNS)
        for case in cases:
            self.add(f"{seen(case, folder, provider)}\n")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
