"""Nets of the zoo, calibrated on some samples and judged on others: a fresh calibration is no finding.

Run from the repository root: ``python -m benchmarks calibrated_zoo [NAME …]``; takes some ten seconds of
processor time for a net. Prints one line per net: its layers, those that depart from the other samples,
errors and warnings, and seconds. Exit 1 if there is an error or a warning.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.export import export, variants
from models.zoo import ZOO
from normfold import loading
from normfold.consistency.calibration import calibrate
from normfold.consistency.drift import data_findings
from normfold.consistency.static import static_findings
from normfold.errors import InputError
from normfold.reporting.report import Finding

JUDGED_ON, BATCH = 64, 16
FIRST_SEED = 1000


def samples(name: str, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Random inputs of a net in batches."""
    entry = ZOO[name]
    tensors = entry.example(batch=count, seed=seed)
    arrays = dict(zip(entry.inputs, (tensor.numpy() for tensor in tensors), strict=True))
    return [
        {key: array[start : start + BATCH] for key, array in arrays.items()}
        for start in range(0, count, BATCH)
    ]


def exported(name: str) -> Path:
    """With its BatchNorms, by the exporter that can do it with an open batch."""
    return export(name, *next(variant for variant in variants(name) if variant[1:] == (True, True)))


def judge(name: str, images: int, seed: int) -> tuple[int, int, list[Finding]]:
    """Calibrates on ``images`` samples and judges on others.

    Returns:
        Layers, those that depart, and what is worse than a remark.

    Raises:
        InputError: the net has no BatchNormalization.
    """
    model = loading.load(exported(name)).model
    done = calibrate(model, samples(name, images, seed), diagnosis=False)
    report = data_findings(done.model, samples(name, JUDGED_ON, FIRST_SEED + seed))
    found = [*done.findings, *static_findings(done.model), *report.findings]
    departing = sum(layer.departs for layer in report.layers)
    return len(report.layers), departing, [finding for finding in found if finding.severity != "info"]


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks calibrated_zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", default=sorted(ZOO), metavar="NAME")
    parser.add_argument("--images", type=int, default=64, help="to calibrate on")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    worse = 0
    print(f"{'net':16} {'layers':>6} {'depart':>6} {'worse':>6} {'s':>6}")
    for name in given.names:
        began = time.perf_counter()
        try:
            layers, departing, found = judge(name, given.images, given.seed)
        except InputError:
            print(f"{name:16} has no BatchNormalization", flush=True)
            continue
        seconds = time.perf_counter() - began
        print(f"{name:16} {layers:6} {departing:6} {len(found):6} {seconds:6.1f}", flush=True)
        for finding in found:
            print(f"    {finding.severity} {finding.code}: {finding.site}: {finding.message}", flush=True)
        worse += len(found)
    return 1 if worse else 0
