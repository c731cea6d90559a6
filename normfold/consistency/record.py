"""What reports keep of a comparison with data, and of a calibration: plain numbers and names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from normfold.reporting.report import Finding

if TYPE_CHECKING:
    from normfold.consistency.calibration import Calibrated
    from normfold.consistency.drift import DataReport


def comparison_record(found: DataReport) -> dict[str, Any]:
    """The comparison: layers ranked, each with its departure per channel under both conditions."""
    return {
        "images": found.images,
        "batch_size": found.batch_size,
        "conclusive": found.conclusive,
        "first": found.first,
        "layers": [layer.to_dict() for layer in found.layers],
        "causes": [dataclasses.asdict(cause) for cause in found.causes],
        "gap": dataclasses.asdict(found.gap) if found.gap is not None else None,
        "recovered": list(found.recovered),
        "relaxed": list(found.relaxed),
    }


def calibration_record(done: Calibrated) -> dict[str, Any]:
    """The calibration: how each layer and each output changed."""
    return {
        "images": done.images,
        "layers": [
            {
                "site": change.site,
                "images": change.images,
                "z": change.z,
                "log_variance_ratio": change.log_variance_ratio,
            }
            for change in done.layers
        ],
        "outputs": [dataclasses.asdict(output) for output in done.outputs],
        "causes": [dataclasses.asdict(cause) for cause in done.causes],
        "gap_before": done.gap_before,
        "gap_after": done.gap_after,
    }


def named(finding: Finding) -> Finding:
    """The finding with its site in front of the message, for formats that show the message alone."""
    if finding.site is None or finding.message.startswith(f"{finding.site}: "):
        return finding
    return dataclasses.replace(finding, message=f"{finding.site}: {finding.message}")
