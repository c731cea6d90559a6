"""Running statistics that are those of the data but for one simple change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from normfold.affine import Array64
from normfold.consistency.departure import LEAST_LOG_RATIO, LEAST_Z, departure, rms
from normfold.consistency.explanation.causes import Cause, Compared, counted
from normfold.consistency.layers import NormLayer

_MOST_BESSEL = 8
_MOST_SHARE, _SHARES_DIFFER = 1.03, 0.15


def bessel(compared: Sequence[Compared]) -> Cause | None:
    """One small batch size whose ``n/(n − 1)``, ``n`` elements per channel, puts all variances right."""
    before = [c.training.log_variance_rms for c in compared]
    worst = int(np.argmax(before))
    if not all(c.training.finite and c.training.z_rms < LEAST_Z for c in compared):
        return None
    for size in range(2, _MOST_BESSEL + 1):
        for sign in (1.0, -1.0):
            after = []
            for c in compared:
                elements = max(size * c.data.training.positions, 2.0)
                factor = (elements / (elements - 1.0)) ** sign
                corrected = dataclasses.replace(c.data.layer, var=c.data.layer.var / factor)
                after.append(departure(c.data.training, corrected).log_variance_rms)
            if max(after) < LEAST_LOG_RATIO / 1.5 and max(after) * 2 < before[worst]:
                stored = "n/(n − 1)" if sign > 0 else "(n − 1)/n"
                return Cause(
                    "NF349",
                    compared[worst].site,
                    f"divided by {stored}, with n the elements per channel of {size} images, all "
                    f"running variances "
                    "are those of the data",
                    True,
                    {"batch_size": float(size), "before": before[worst], "after": max(after)},
                )
    return None


def factor(departing: Sequence[Compared]) -> Cause | None:
    """One factor on all variances of a layer, the means being right or bearing it too (Caffe's sums)."""
    found = []
    for c in departing:
        if not c.training.beyond_noise:
            continue
        layer, moments = c.data.layer, c.data.training
        if not c.training.finite or layer.channels < 2 or (layer.var <= 0).any():
            return None
        ratios = np.log(np.maximum(moments.variance, 1e-300) / layer.var)
        common = float(np.median(ratios))
        spread = float(np.sqrt(np.square(ratios - common).mean()))
        noise = float(np.sqrt(np.square(c.training.log_variance_noise).mean()))
        if abs(common) < 0.4 or spread > max(0.1 * abs(common), 2 * noise, 0.02):
            return None
        scaled = math.exp(-common)
        deviation = np.sqrt(moments.variance)
        alone = float(np.sqrt(np.square((layer.mean - moments.mean) / deviation).mean()))
        both = float(np.sqrt(np.square((layer.mean / scaled - moments.mean) / deviation).mean()))
        found.append((c.site, scaled, alone, both))
    if not found:
        return None
    site, scaled, _, _ = found[0]
    evidence = {"factor": scaled, "layers": float(len(found))}
    tolerance = 2 * LEAST_Z
    if all(alone < tolerance for _, _, alone, _ in found):
        return Cause(
            "NF354",
            site,
            f"the running variances of {counted(len(found), 'layer')} are those of the data times "
            f"{scaled:.4g} in "
            "every channel, and the means agree",
            True,
            evidence,
        )
    if all(both < tolerance for _, _, _, both in found):
        return Cause(
            "NF315",
            site,
            f"running means and variances of {counted(len(found), 'layer')} are those of the data times "
            f"{scaled:.4g}: sums that were never divided by their weight",
            True,
            evidence,
        )
    return None


def warm_up(departing: Sequence[Compared]) -> Cause | None:
    """Statistics on the line from their initial values 0 and 1 to those of the data."""
    shares = []
    unexplained = 0.0
    for c in departing:
        layer, moments = c.data.layer, c.data.training
        data = np.concatenate([moments.mean, moments.variance])
        begin = np.repeat([0.0, 1.0], layer.channels)
        running = np.concatenate([layer.mean, layer.var])
        weight = np.concatenate(
            [
                1.0 / np.sqrt(np.maximum(moments.variance, 1e-12)),
                1.0 / np.maximum(np.maximum(moments.variance, layer.var), 1e-12),
            ]
        )
        way, gone = (begin - data) * weight, (running - data) * weight
        share = float((way * gone).sum() / max(np.square(way).sum(), 1e-300))
        total, residual = rms(gone), rms(gone - share * way)
        if (
            not 0.0 < share <= _MOST_SHARE
            or 2 * residual > total
            or residual > max(0.1 * total, LEAST_LOG_RATIO)
        ):
            return None
        if not _near(
            layer,
            moments.mean - share * moments.mean,
            moments.variance + share * (1.0 - moments.variance),
        ):
            return None
        shares.append(share)
        unexplained = max(unexplained, residual / max(total, 1e-300))
    if not shares or max(shares) - min(shares) > min(_SHARES_DIFFER, max(shares) / 2):
        return None
    share = float(np.median(shares))
    return Cause(
        "NF343",
        departing[0].site,
        f"the running statistics are {share:.2g} of their initial values 0 and 1 and {1 - share:.2g} of "
        f"those of the data, in "
        f"{counted(len(shares), 'layer')}: too few updates, or a momentum too small to follow",
        True,
        {"share": 1 - share, "layers": float(len(shares)), "unexplained": unexplained},
    )


def _near(layer: NormLayer, mean: Array64, var: Array64) -> bool:
    """Whether these are the layer's statistics on their own scale, which that of the data may dwarf."""
    with np.errstate(all="ignore"):
        z = (layer.mean - mean) / np.sqrt(layer.var + layer.epsilon)
        ratio = np.log((layer.var + layer.epsilon) / (var + layer.epsilon))
        return bool(
            np.sqrt(np.square(z).mean()) < 2 * LEAST_LOG_RATIO
            and np.sqrt(np.square(ratio).mean()) < 2 * LEAST_LOG_RATIO
        )
