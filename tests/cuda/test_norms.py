"""GroupNorm of a float16 U-Net on the device: right, nowhere else, and faster than as it was exported."""

from __future__ import annotations

from pathlib import Path

import pytest

import normfold
from benchmarks.cuda import FORMS, NHWC, write_unet
from normfold.benchmarking import BenchOptions
from normfold.commands.bench import bench
from normfold.runtime.execution_providers import CUDA

OF_NORMS = {
    "GroupNorm",
    "GroupNormalization",
    "InstanceNormalization",
    "BatchNormalization",
    "LayerNormalization",
}


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unet(tmp_path_factory.mktemp("unet") / "unet.onnx")


@pytest.mark.parametrize("form", [None, *FORMS])
def test_no_norm_leaves_the_device(unet: Path, tmp_path: Path, form: str | None) -> None:
    report = normfold.fold(
        unet, tmp_path / "out.onnx", providers=[CUDA], target="ort-cuda", groupnorm=form
    ).report
    assert report.verification.verdict == "pass"
    assert sum(site.action == "substituted" for site in report.sites) in (0, 10)
    for row in report.verification.providers:
        assert row["status"] == "ok" and row["assigned"][CUDA]
        assert not OF_NORMS & {node.partition(":")[0] for node in row["fallbacks"]}


def test_contrib_operator_with_channels_last_beats_the_exported_chain(unet: Path, tmp_path: Path) -> None:
    options = {CUDA: NHWC}
    folded = tmp_path / "out.onnx"
    normfold.fold(unet, folded, providers=[CUDA], provider_options=options, groupnorm="ms-groupnorm")
    (row,) = bench(unet, folded, BenchOptions(providers=(CUDA,), provider_options=options)).measurements
    assert row.io_binding and row.interval[0] >= 1.5
