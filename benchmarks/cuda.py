"""Folds of real models verified and timed on CUDA: ``python -m benchmarks cuda -o docs/cuda.md``.

Needs onnxruntime-gpu and a device; without, it says so and exits with 3.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

import normfold
from models import real
from normfold.benchmarking import BenchOptions
from normfold.commands.bench import bench
from normfold.errors import Inconclusive, NormfoldError
from normfold.reporting.report import Report
from normfold.verification.runtime import provider_name

_INTRODUCTION = """# Folds on a device

Written by `python -m benchmarks cuda` on {device}, onnxruntime {version}, provider {provider}.
Each model is folded for it and verified there with TF32 off; errors are against the float64 reference.
*Nodes* are those that the provider was given and, after the sign, those that went elsewhere, with their
operators. *Spread* is the largest difference between three runs of the original, *TF32* the error of original
and folded model with TF32 on, which decides nothing. *Speed* is original by folded with its 95 % interval,
inputs and outputs kept on the device.

| model | verdict | nodes, original | nodes, folded | e0 | e1 | bound | spread | TF32 | speed |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What was seen of one model."""

    name: str
    provider: str
    report: Report
    speed: str

    def __str__(self) -> str:
        verification = self.report.verification
        short = self.provider.removesuffix("ExecutionProvider").lower()
        errors = [row for row in verification.rounding if row["provider"] == short]
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
        short = self.provider.removesuffix("ExecutionProvider").lower()
        for row in self.report.verification.providers:
            if row["provider"] == short and row["model"] == model:
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


def seen(name: str, path: Path, folder: Path, provider: str) -> Row:
    """Folds, verifies and times one model."""
    output = folder / f"{name}.onnx"
    try:
        report = normfold.fold(path, output, providers=[provider]).report
    except NormfoldError as error:
        if error.report is None:
            raise
        return Row(name, provider, error.report, "–")
    timed = bench(path, output, BenchOptions(providers=(provider,)))
    speeds = [
        f"{row.speedup:.2f} ({row.interval[0]:.2f} to {row.interval[1]:.2f})" for row in timed.measurements
    ]
    return Row(name, provider, report, ", ".join(speeds) or "–")


def models(given: Sequence[Path]) -> dict[str, Path]:
    """The models to look at by name: those given, or the real ones that are there and onnx's own."""
    if given:
        return {path.stem: path for path in given}
    return {**{name: real.path(name) for name in real.available()}, **real.light()}


def main(arguments: Sequence[str]) -> int:
    """Verify, time, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cuda", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="model files; by default the real ones")
    parser.add_argument("-o", "--output", type=Path, help="write the table to this file")
    parser.add_argument(
        "--device", default="an unnamed device", help="what the device is called in the table"
    )
    parser.add_argument("--ep", default="cuda", help="execution provider")
    given = parser.parse_args(arguments)
    provider, version = provider_name(given.ep), onnxruntime.__version__
    if provider not in onnxruntime.get_available_providers():
        print(f"nothing was measured: {provider} is not registered in onnxruntime {version}")
        return Inconclusive.exit_code
    text = _INTRODUCTION.format(device=given.device, version=version, provider=provider)
    print(text, end="")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(given.models).items():
            row = str(seen(name, path, Path(folder), provider))
            print(row, flush=True)
            text += f"{row}\n"
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    return 0


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
