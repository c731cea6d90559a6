"""Why running statistics depart from data: hypotheses that are tried on the model, not read off patterns."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.consistency import batch_noise
from normfold.consistency.departure import LEAST_LOG_RATIO, LEAST_Z, Departure, departure
from normfold.consistency.layers import NormLayer
from normfold.consistency.measurement import LayerData, Measured, measure_layers
from normfold.consistency.preprocessing import explained_by_inputs, find_preparation, first_layers
from normfold.consistency.statistics import Batch, image_count, rebatched
from normfold.consistency.training import running_layers
from normfold.evaluation import NotCovered

LARGE_EPSILON = 1e-2
USUAL_EPSILONS = (1e-5, 1e-3)
TINY_BATCH = 4
LEAST_BATCH = 16
_MOST_BESSEL = 8

_EXPLAINED = 0.8
_CURED = 10.0


@dataclass(frozen=True)
class Cause:
    """A likely cause of a departure.

    Attributes:
        code: its reason code.
        site: the first layer that it shows in; ``None`` where it concerns the model as a whole.
        message: what was tried and what came of it, with numbers.
        repairable: whether the running statistics are at fault, so that estimating them again repairs the
            model.
        evidence: the numbers by name.
    """

    code: str
    site: str | None
    message: str
    repairable: bool
    evidence: dict[str, float]


@dataclass(frozen=True)
class Compared:
    """One layer against the data, in deployment and in training conditions.

    The latter say nothing where batches are so small that they change what the layers are given.
    """

    data: LayerData
    deployment: Departure
    training: Departure
    judged_in_training: bool = True

    @property
    def site(self) -> str:
        return self.data.layer.site

    @property
    def departs(self) -> bool:
        return self.deployment.beyond_noise or (self.judged_in_training and self.training.beyond_noise)


def compare(measured: Measured) -> list[Compared]:
    """Every layer that the data reached, in graph order."""
    return [
        Compared(
            data,
            departure(data.deployment, data.layer),
            departure(data.training, data.layer),
            measured.batch_size >= LEAST_BATCH,
        )
        for data in measured.layers
        if data.deployment.images and data.training.images
    ]


def diagnose(measured: Measured, compared: Sequence[Compared], budget_seconds: float = 60.0) -> list[Cause]:
    """Likely causes of the departures, the best supported first.

    Empty where no layer departs, or where honest training with batches of eight images or more explains it.

    Args:
        measured: the pass over the data.
        compared: its layers.
        budget_seconds: time after which no other experiment is begun.
    """
    departing = [c for c in compared if c.departs]
    if not departing:
        return []
    deadline = time.monotonic() + budget_seconds
    first = departing[0]
    if (cause := _epsilon(measured, compared)) is not None:
        return [cause]
    entry_sites = {layer.site for layer in first_layers(measured.opened.model, _layers(compared))}
    entries = [c for c in compared if c.site in entry_sites]
    if any(c.departs for c in entries) and time.monotonic() < deadline:
        found = find_preparation(
            measured.opened.model, [c.data.layer for c in entries], _some(measured.samples)
        )
        if found is not None:
            return [
                Cause(
                    found.candidate.code,
                    entries[0].site,
                    f"{found.candidate.text} in input '{found.input}' brings the first layer to its running "
                    f"statistics: mean divergence {found.before:.3g} becomes {found.after:.3g} nats",
                    False,
                    {"before": found.before, "after": found.after},
                )
            ]
    uniform = _bessel(compared) or _factor(departing)
    if uniform is not None:
        return [uniform]
    noise = _batches(measured, compared, deadline) if all(c.training.finite for c in compared) else None
    if noise is not None:
        return noise
    warm_up = _warm_up(departing)
    if warm_up is not None:
        return [warm_up]
    return [_domain_or_stale(measured, entries, first)]


def _layers(compared: Sequence[Compared]) -> list[NormLayer]:
    return [c.data.layer for c in compared]


def _some(samples: Sequence[Batch], most: int = 128) -> list[Batch]:
    taken: list[Batch] = []
    count = 0
    for sample in samples:
        if taken and count >= most:
            break
        taken.append(sample)
        count += image_count(sample)
    return taken


def _epsilon(measured: Measured, compared: Sequence[Compared]) -> Cause | None:
    """Layers behind one whose epsilon was not there in training are given something else."""
    large = [c for c in compared if c.data.layer.epsilon >= LARGE_EPSILON]
    if not large:
        return None
    before = _departing(compared)
    best: tuple[float, float] | None = None
    for epsilon in USUAL_EPSILONS:
        model = measured.opened.model.clone()
        for layer in running_layers(model):
            if layer.epsilon >= LARGE_EPSILON:
                layer.node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
        again = compare(measure_layers(model, measured.samples, measured.batch_size))
        after = _departing(again)
        if after * _CURED < before and (best is None or after < best[1]):
            best = epsilon, after
    if best is None:
        return None
    layer = large[0].data.layer
    return Cause(
        "NF307",
        layer.site,
        f"with epsilon {best[0]:g} instead of {layer.epsilon:g} the layers behind agree with their running "
        f"statistics: mean divergence {before:.3g} becomes {best[1]:.3g} nats; training had another "
        f"epsilon, and the "
        "statistics are not the cause",
        False,
        {"before": before, "after": best[1], "epsilon": best[0]},
    )


def _departing(compared: Sequence[Compared]) -> float:
    """Mean divergence over layers, the larger of both conditions, each in terms of its own epsilon."""
    return float(np.mean([_kl_without_epsilon(c) for c in compared]))


def _kl_without_epsilon(c: Compared) -> float:
    """A large epsilon hides a departure from its own layer."""
    layer, moments = c.data.layer, c.data.deployment
    floor = 1e-5
    running, observed = layer.var + floor, moments.variance + floor
    kl = 0.5 * (
        observed / running + np.square(moments.mean - layer.mean) / running - 1 - np.log(observed / running)
    )
    return float(kl.mean())


def _bessel(compared: Sequence[Compared]) -> Cause | None:
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


def _factor(departing: Sequence[Compared]) -> Cause | None:
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
            f"the running variances of {_counted(len(found), 'layer')} are those of the data times "
            f"{scaled:.4g} in "
            "every channel, and the means agree",
            True,
            evidence,
        )
    if all(both < tolerance for _, _, _, both in found):
        return Cause(
            "NF315",
            site,
            f"running means and variances of {_counted(len(found), 'layer')} are those of the data times "
            f"{scaled:.4g}: sums that were never divided by their weight",
            True,
            evidence,
        )
    return None


def _batches(measured: Measured, compared: Sequence[Compared], deadline: float) -> list[Cause] | None:
    """The scatter of a running average over small batches, or over few of them."""
    layers = [c.data for c in compared]
    sites = [c.site for c in compared]
    simulations: dict[int, Sequence[LayerData]] = {}
    if measured.opened.closed is None:
        for size in batch_noise.SIMULATED:
            if size > image_count(measured.samples[0]) or time.monotonic() > deadline:
                continue
            given = {
                data.layer.site: data
                for data in measure_layers(
                    measured.opened.model, rebatched(measured.samples, size), size
                ).layers
            }
            simulations[size] = [given[site] for site in sites]
    ranked = batch_noise.rank(layers, simulations)
    best = ranked[0]
    if not best.fits:
        return None
    first = next(c for c in compared if c.departs)
    evidence = {
        "batch_size": float(best.batch_size),
        "momentum": best.momentum,
        "images": best.images,
        "misfit": best.misfit,
    }
    fit = f"(mean square deviation {best.misfit:.2g} of what that predicts, at the worst layer)"
    if best.momentum > 0.5:
        return [
            Cause(
                "NF343",
                first.site,
                f"the running statistics scatter like those of the last few batches alone, about "
                f"{best.batch_size} "
                f"images each {fit}: the momentum weighs the new batch by {best.momentum:g}",
                True,
                evidence,
            )
        ]
    if best.batch_size <= TINY_BATCH:
        return [
            Cause(
                "NF344",
                first.site,
                f"the running statistics are those of training with batches of about "
                f"{best.batch_size} images {fit}",
                True,
                evidence,
            )
        ]
    return []


def _warm_up(departing: Sequence[Compared]) -> Cause | None:
    """Statistics on the line from their initial values 0 and 1 to those of the data."""
    shares = []
    for c in departing:
        layer, moments = c.data.layer, c.data.training
        a = np.concatenate([moments.mean, moments.variance - 1.0])
        b = np.concatenate([layer.mean, layer.var - 1.0])
        weight = np.tile(1.0 / np.sqrt(np.maximum(moments.variance, 1e-12)), 2)
        weight[layer.channels :] = 1.0 / np.maximum(np.maximum(moments.variance, layer.var), 1e-12)
        kept = float((a * b * weight**2).sum() / max((a * a * weight**2).sum(), 1e-300))
        residual = float(np.sqrt(np.square((b - kept * a) * weight).mean()))
        total = float(np.sqrt(np.square((b - a) * weight).mean()))
        if not 0.0 <= kept < 0.97 or residual > max(0.1 * total, LEAST_LOG_RATIO):
            return None
        shares.append(kept)
    if not shares or max(shares) - min(shares) > 0.15:
        return None
    share = float(np.median(shares))
    return Cause(
        "NF343",
        departing[0].site,
        f"the running statistics are {1 - share:.0%} their initial values 0 and 1 and {share:.0%} "
        f"those of the data, in "
        f"{_counted(len(shares), 'layer')}: too few updates, or a momentum too small to follow",
        True,
        {"share": share, "layers": float(len(shares))},
    )


def _domain_or_stale(measured: Measured, entries: Sequence[Compared], first: Compared) -> Cause:
    entry = next((c for c in entries if c.departs), None)
    if entry is None:
        return Cause(
            "NF342",
            first.site,
            f"the layers in front of '{first.site}' agree with the data, and it does not: its "
            f"statistics are not of "
            "these weights",
            True,
            {"z": first.training.z_rms, "log_variance_ratio": first.training.log_variance_rms},
        )
    try:
        explained = explained_by_inputs(measured.opened.model, entry.data.layer, _some(measured.samples))
    except NotCovered:
        explained = None
    evidence = {"z": entry.training.z_rms, "log_variance_ratio": entry.training.log_variance_rms}
    if explained is not None:
        evidence["explained"] = explained
    if explained is not None and explained < _EXPLAINED:
        return Cause(
            "NF342",
            entry.site,
            f"no inputs of another brightness and contrast give '{entry.site}' its running means "
            f"(they explain "
            f"{max(explained, 0.0):.0%} of the departure): the statistics are of other weights",
            True,
            evidence,
        )
    why = (
        "no preparation of the inputs that was tried brings the first layer to its running statistics"
        if explained is None
        else f"inputs of another brightness and contrast explain {explained:.0%} of the departing means of "
        f"'{entry.site}', and no usual preparation does"
    )
    return Cause(
        "NF345",
        entry.site,
        f"{why}: the statistics were taken on other data",
        True,
        evidence,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
