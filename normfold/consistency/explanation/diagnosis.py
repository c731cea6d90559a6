"""Why running statistics depart from data: hypotheses that are tried on the model, not read off patterns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from normfold.consistency.departure import LEAST_IMAGES
from normfold.consistency.explanation import batch_noise
from normfold.consistency.explanation.calibration_noise import explained_by_calibration
from normfold.consistency.explanation.causes import Cause, Compared, compare
from normfold.consistency.explanation.image_scatter import ImageScatter, image_scatter
from normfold.consistency.explanation.other_weights import judged_by_weights
from normfold.consistency.explanation.preprocessing import explained_by_inputs, find_preparation
from normfold.consistency.explanation.transformed import bessel, factor, warm_up
from normfold.consistency.layers import NormLayer
from normfold.consistency.measurement import LayerData, Measured, measure_layers
from normfold.consistency.order import first_layers
from normfold.consistency.statistics import Batch, image_count, rebatched
from normfold.consistency.training import running_layers
from normfold.evaluation import NotCovered

LARGE_EPSILON = 1e-2
USUAL_EPSILONS = (1e-5, 1e-3)

_EXPLAINED = 0.8
_CURED = 10.0
_EXACT = 0.25
"""Share of a departure that may be left where one relation in all channels is to be believed before noise."""


@dataclass(frozen=True)
class Diagnosis:
    """What explains departures.

    Attributes:
        causes: the likely ones, the best supported first.
        honest: the way of honest training whose noise explains them instead, as a sentence; ``None`` where
            none does or nothing departs.
    """

    causes: list[Cause] = field(default_factory=list)
    honest: str | None = None


def diagnose(measured: Measured, compared: Sequence[Compared], budget_seconds: float = 60.0) -> Diagnosis:
    """Explains the departures: by a cause, or by honest training with batches of eight images or more.

    Args:
        measured: the pass over the data.
        compared: its layers.
        budget_seconds: time after which no other experiment is begun.
    """
    departing = [c for c in compared if c.departs]
    entry_sites = {layer.site for layer in first_layers(measured.opened.model, _layers(compared))}
    entries = [c for c in compared if c.site in entry_sites]
    if not departing:
        stated = _stated_momentum(compared, lambda: _scatter(measured, entries))
        return Diagnosis([stated] if stated is not None else [])
    deadline = time.monotonic() + budget_seconds
    if not all(_is_finite(c.data) for c in compared):
        return Diagnosis()
    finite = all(c.training.finite for c in compared)
    if finite and (honest := explained_by_calibration(measured, compared, deadline)) is not None:
        return Diagnosis(honest=honest)
    if (cause := _epsilon(measured, compared)) is not None:
        return Diagnosis([cause])
    if any(c.departs for c in entries) and time.monotonic() < deadline:
        found = find_preparation(
            measured.opened.model, [c.data.layer for c in entries], _some(measured.samples)
        )
        if found is not None:
            cause = Cause(
                found.candidate.code,
                entries[0].site,
                f"{found.candidate.text} in input '{found.input}' brings the first layer to its running "
                f"statistics: mean divergence {found.before:.3g} becomes {found.after:.3g} nats",
                False,
                {"before": found.before, "after": found.after},
            )
            return Diagnosis([cause])
    scatter = _scatter(measured, entries)
    honest_means = scatter is None or scatter.explained_by(LEAST_IMAGES)
    uniform = (bessel(compared) if honest_means else None) or factor(departing)
    if uniform is not None:
        return Diagnosis([uniform])
    late = warm_up(departing)
    if late is not None and late.evidence["unexplained"] < _EXACT:
        return Diagnosis([late])
    noise = _batches(measured, compared, scatter, deadline) if finite else None
    if noise is not None:
        return noise
    return Diagnosis([late or _domain_or_stale(measured, compared, entries, departing[0])])


def _is_finite(data: LayerData) -> bool:
    """Whether the data are numbers there; otherwise nothing can be tried."""
    return bool(np.isfinite(data.training.mean).all() and np.isfinite(data.training.variance).all())


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
        opened = replace(measured.opened, model=model)
        again = compare(measure_layers(model, measured.samples, measured.batch_size, opened=opened))
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


def _scatter(measured: Measured, entries: Sequence[Compared]) -> ImageScatter | None:
    return image_scatter(measured.opened.model, [c.data.layer for c in entries], measured.samples)


def _batches(
    measured: Measured, compared: Sequence[Compared], scatter: ImageScatter | None, deadline: float
) -> Diagnosis | None:
    """The scatter of a running average over small batches, or over few of them."""
    layers = [c.data for c in compared]
    simulations: dict[int, Sequence[LayerData]] = {}
    possible = scatter is None or scatter.explained_by(batch_noise.FEWEST_IMAGES)
    if measured.opened.closed is None and possible:
        for size in batch_noise.SIMULATED:
            if size > image_count(measured.samples[0]) or time.monotonic() > deadline:
                continue
            given = {
                data.layer.node: data
                for data in measure_layers(
                    measured.opened.model,
                    rebatched(measured.samples, size),
                    size,
                    opened=measured.opened,
                    deployment=False,
                ).layers
            }
            simulations[size] = [given[data.layer.node] for data in layers]
    ranked = batch_noise.rank(layers, simulations)
    stated_weight = batch_noise.stated_weight(layers)
    chosen = batch_noise.choose(ranked, stated_weight, scatter)
    if chosen is None:
        return None
    if not chosen.is_short and (stated := _stated_momentum(compared, lambda: scatter)) is not None:
        return Diagnosis([stated])
    first = next(c for c in compared if c.departs)
    evidence = {
        "batch_size": float(chosen.batch_size),
        "momentum": chosen.momentum,
        "images": chosen.images,
        "misfit": chosen.misfit,
    }
    fit = f"(mean square deviation {chosen.misfit:.2g} of what that predicts)"
    if chosen.is_short:
        message = (
            "the running statistics scatter like those of the last few batches alone, about "
            f"{chosen.batch_size} images each {fit}: the momentum weighs the new batch by {chosen.momentum:g}"
        )
        if stated_weight <= 0.5 and (other := batch_noise.rival(chosen, ranked, scatter)) is not None:
            message += (
                f"; training with batches of about {other.batch_size} images (NF344) would scatter alike, "
                "and nothing tells them apart"
            )
        return Diagnosis([Cause("NF343", first.site, message, True, evidence)])
    if chosen.is_tiny:
        message = (
            f"the running statistics are those of training with batches of about {chosen.batch_size} images "
            f"{fit}"
        )
        return Diagnosis([Cause("NF344", first.site, message, True, evidence)])
    return Diagnosis(
        honest=f"training with batches of about {chosen.batch_size} images scatters as much {fit}"
    )


def _stated_momentum(
    compared: Sequence[Compared], measure: Callable[[], ImageScatter | None]
) -> Cause | None:
    """Where the file itself says that the new batch weighs most, less scatter is enough to believe it.

    ``measure`` runs the model, and is called only where the file says so.
    """
    layers = [c.data for c in compared]
    weight = batch_noise.stated_weight(layers)
    if weight <= 0.5 or not all(c.training.finite for c in compared):
        return None
    images = batch_noise.effective_images(layers)
    if images is None:
        return None
    scatter = measure()
    if scatter is not None and not scatter.explained_by(images):
        return None
    return Cause(
        "NF343",
        layers[0].layer.site,
        f"the file says that momentum weighs the new batch by {weight:g}, and the running statistics scatter "
        f"like those of {images:.0f} images",
        True,
        {"momentum": weight, "images": images},
    )


def _domain_or_stale(
    measured: Measured, compared: Sequence[Compared], entries: Sequence[Compared], first: Compared
) -> Cause:
    judged = judged_by_weights(measured.opened.model, compared)
    if judged is not None:
        evidence = {"running": judged.running, "data": judged.data}
        if judged.are_other:
            return Cause(
                "NF342",
                first.site,
                f"the weights in front of '{judged.site}' produce its means over the data (off by "
                f"{judged.data:.2g} standard deviations), not its running means ({judged.running:.2g}): the "
                "statistics are of other weights",
                True,
                evidence,
            )
        return Cause(
            "NF345",
            first.site,
            f"the weights in front of '{judged.site}' produce its running means (off by "
            f"{judged.running:.2g} standard deviations, the data by {judged.data:.2g}), and no usual "
            "preparation of the inputs explains the departure: the statistics were taken on other data",
            True,
            evidence,
        )
    entry = next((c for c in entries if c.departs), None)
    if entry is None:
        return Cause(
            "NF342",
            first.site,
            f"the layers in front of '{first.site}' agree with the data, and it does not: its "
            "statistics are not of these weights",
            True,
            {"z": first.training.z_rms, "log_variance_ratio": first.training.log_variance_rms},
        )
    return _by_inputs(measured, entry)


def _by_inputs(measured: Measured, entry: Compared) -> Cause:
    """Whether inputs could have given the first layer its statistics, where no layer behind tells."""
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
            f"(they explain {max(explained, 0.0):.0%} of the departure): the statistics are of other weights",
            True,
            evidence,
        )
    if explained is None and entry.data.layer.x not in measured.samples[0]:
        return Cause(
            "NF345",
            entry.site,
            "no preparation of the inputs that was tried brings the first layer to its running statistics: "
            "they were taken on other data, or with other weights (NF342), and nothing tells which",
            True,
            evidence,
        )
    why = (
        "no preparation of the inputs that was tried brings the first layer to its running statistics"
        if explained is None
        else f"inputs of another brightness and contrast explain {explained:.0%} of the departing means of "
        f"'{entry.site}', and no usual preparation does"
    )
    return Cause("NF345", entry.site, f"{why}: the statistics were taken on other data", True, evidence)
