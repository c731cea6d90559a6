"""Running statistics against data: what departs, where it begins, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import onnx_ir as ir

from normfold.consistency.departure import LEAST_IMAGES, Departure
from normfold.consistency.explanation.causes import Cause, Compared, compare
from normfold.consistency.explanation.diagnosis import diagnose
from normfold.consistency.layers import inlined
from normfold.consistency.measurement import TRAINING_BATCH, Measured, Progress, measure_layers
from normfold.consistency.oracle import TrainEvalGap, measure_gap
from normfold.consistency.overridable import overridable_layers
from normfold.consistency.statistics import Batch
from normfold.consistency.unfolding import Unfolded, unfold
from normfold.consistency.written import spelled_as_layers
from normfold.evaluation import EvaluationFailed
from normfold.reporting.report import Finding

_LARGE_GAP = 0.5
_DEPENDS = 1e-9


@dataclass(frozen=True)
class LayerDrift:
    """One layer against the data.

    Attributes:
        site: name of its output value.
        index: its place among the layers, in graph order.
        images: images it was judged on.
        deployment: with running statistics in all layers above, as deployed.
        training: with batch statistics in all layers above, as in training: a departure here is the layer's
            own.
        departs: whether either is beyond sampling noise.
        channels: single channels that are far off.
    """

    site: str
    index: int
    images: int
    deployment: Departure
    training: Departure
    departs: bool
    channels: tuple[int, ...]

    @property
    def score(self) -> float:
        """What layers are ranked by: mean divergence in nats under the worse condition."""
        return max(self.deployment.score, self.training.score)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; arrays as lists, one number per channel."""
        return {
            "site": self.site,
            "index": self.index,
            "images": self.images,
            "departs": self.departs,
            "score": self.score,
            "channels": list(self.channels),
            **{
                name: {
                    "z": part.z.tolist(),
                    "log_variance_ratio": part.log_variance_ratio.tolist(),
                    "kl": part.kl.tolist(),
                }
                for name, part in (("deployment", self.deployment), ("training", self.training))
            },
        }


@dataclass
class DataReport:
    """What data say of a model's running statistics.

    Attributes:
        findings: errors and remarks.
        layers: ranked, the worst first.
        images: how many there were.
        batch_size: images per batch under training conditions.
        conclusive: whether there were enough images to judge; exit 3 if not.
        first: site of the first layer, in graph order, that departs.
        causes: likely causes with evidence, the best supported first.
        gap: training mode against evaluation; ``None`` where it was not asked for.
        recovered: sites of layers that were folded away and known from the model's provenance.
        relaxed: Reshapes whose baked-in batch size was relaxed to measure this.
    """

    findings: list[Finding] = field(default_factory=list)
    layers: list[LayerDrift] = field(default_factory=list)
    images: int = 0
    batch_size: int = 0
    conclusive: bool = True
    first: str | None = None
    causes: list[Cause] = field(default_factory=list)
    gap: TrainEvalGap | None = None
    recovered: tuple[str, ...] = ()
    relaxed: tuple[str, ...] = ()


def data_findings(
    model: ir.Model,
    batches: Iterable[Batch],
    *,
    batch_size: int = TRAINING_BATCH,
    oracle: bool = True,
    budget_seconds: float = 60.0,
    progress: Progress | None = None,
) -> DataReport:
    """Compares the running statistics of every layer with the data, and says what departs and why.

    One pass over the data; every batch is run in deployment and in training conditions. Memory does not grow
    with the number of images.

    Args:
        model: is not changed. A folded one is judged where its provenance knows the layers, hand-written
            layers where they divide by their deviation.
        batches: inputs by name; axis 0 counts images.
        batch_size: images per batch under training conditions, where the model takes that many.
        oracle: also measure training mode against evaluation.
        budget_seconds: time for experiments on the cause, and again for the oracle.
        progress: is told what is being done.

    Raises:
        InputError: the data hold no image, or the model cannot be evaluated on them.
    """
    unfolded = unfold(spelled_as_layers(inlined(model))[0])
    measured = measure_layers(unfolded.model, batches, batch_size, progress)
    compared = compare(measured)
    report = DataReport(
        layers=_ranked(compared),
        images=measured.images,
        batch_size=measured.batch_size,
        recovered=unfolded.sites,
        relaxed=measured.opened.relaxed,
    )
    report.findings += _not_measured(unfolded, measured)
    if not measured.layers:
        return report
    if measured.images < LEAST_IMAGES:
        report.conclusive = False
        report.findings.append(
            Finding(
                "NF341",
                "info",
                f"the data hold {measured.images} image{'s' * (measured.images != 1)}; at least "
                f"{LEAST_IMAGES} are "
                "needed to tell a departure from sampling noise",
            )
        )
        return report
    if progress is not None:
        progress("causes")
    _judge(report, measured, compared, budget_seconds)
    if oracle:
        if progress is not None:
            progress("training mode")
        try:
            report.gap = measure_gap(
                measured.opened.model,
                measured.samples,
                budget_seconds=budget_seconds,
                opened=measured.opened,
            )
        except EvaluationFailed as error:
            report.findings.append(Finding("NF353", "info", f"training mode was not measured: {error}"))
        else:
            report.findings += _of_gap(report.gap, any(f.severity == "error" for f in report.findings))
    return report


def _not_measured(unfolded: Unfolded, measured: Measured) -> list[Finding]:
    reasons = [
        (
            data.layer.site,
            "no branch or iteration that holds it runs on the data"
            if data.layer.within
            else "its input is not computed on the way to an output",
        )
        for data in measured.layers
        if not data.deployment.images
    ]
    reasons += [(site, f"it was folded, and cannot be put back: {why}") for site, why in unfolded.lost]
    reasons += [
        (site, "a caller may override its parameters: --freeze-initializers takes them for constants")
        for site in overridable_layers(unfolded.model)
    ]
    found = [Finding("NF353", "info", why, site) for site, why in reasons]
    if not measured.layers and not found:
        why = "the model has no BatchNormalization with running statistics, and no record of one"
        found.append(Finding("NF353", "info", f"{why}: there is nothing to hold against the data"))
    return found


def _ranked(compared: Sequence[Compared]) -> list[LayerDrift]:
    layers = [
        LayerDrift(
            c.site,
            index,
            c.data.deployment.images,
            c.deployment,
            c.training,
            c.departs,
            tuple(c.deployment.channels),
        )
        for index, c in enumerate(compared)
    ]
    return sorted(layers, key=lambda layer: (not layer.departs, -layer.score, layer.index))


def _judge(
    report: DataReport, measured: Measured, compared: Sequence[Compared], budget_seconds: float
) -> None:
    departing = [c for c in compared if c.departs]
    diagnosis = diagnose(measured, compared, budget_seconds)
    report.causes = diagnosis.causes
    severity: Literal["error", "info"] = "error" if diagnosis.honest is None else "info"
    because = "" if diagnosis.honest is None else f"; {diagnosis.honest}"
    for c in compared:
        if c.departs:
            report.findings.append(
                Finding("NF340", severity, _describe(c, measured.images) + because, c.site)
            )
        elif channels := c.deployment.channels:
            named = ", ".join(str(channel) for channel in channels[:5]) + ", …" * (len(channels) > 5)
            report.findings.append(
                Finding(
                    "NF340",
                    "info",
                    f"{len(channels)} of {c.data.layer.channels} channels are far from the data "
                    f"({named}); the layer "
                    "as a whole is not",
                    c.site,
                )
            )
    report.first = departing[0].site if departing else None
    for cause in report.causes:
        severity = "info" if cause.code == "NF349" else "error"
        report.findings.append(Finding(cause.code, severity, cause.message, cause.site))


def _describe(c: Compared, images: int) -> str:
    worse, name = (
        (c.training, "training")
        if c.training.score > c.deployment.score and c.training.beyond_noise
        else (c.deployment, "deployment")
    )
    if not worse.finite:
        return f"over {images} images its input, or its statistics, are not finite"
    own = (
        ""
        if c.training.beyond_noise
        else "; with batch statistics above it agrees, so the cause lies in front of it"
    )
    return (
        f"over {images} images, {name} conditions: mean off by {worse.z_rms:.3g} running standard deviations "
        f"(noise {_mean(worse.z_noise):.2g}), variance by a factor of {_factor(worse):.3g} "
        f"(divergence {worse.score:.3g} nats){own}"
    )


def _mean(values: Any) -> float:
    return float(values.mean())


def _factor(found: Departure) -> float:
    """Typical ratio of the variances, as a factor above 1."""
    return math.exp(min(found.log_variance_rms, 700.0))


def _of_gap(gap: TrainEvalGap, unexplained: bool) -> list[Finding]:
    findings = []
    if gap.gaps:
        largest = max(g.batch_size for g in gap.gaps)
        worst = max((g for g in gap.gaps if g.batch_size == largest), key=lambda g: g.relative)
        if largest >= 32 and worst.relative > _LARGE_GAP:
            flips = "" if worst.flips is None else f", {worst.flips:.1%} of labels change"
            begin = f"; '{gap.layers[0].site}' contributes most" if gap.layers else ""
            findings.append(
                Finding(
                    "NF350",
                    "warn" if unexplained else "info",
                    f"with the statistics of {largest} images output '{worst.output}' moves by "
                    f"{worst.relative:.2g} "
                    f"of its standard deviation{flips}{begin}",
                )
            )
    for name, change in gap.batch_dependence.items():
        if not change <= _DEPENDS:
            findings.append(
                Finding(
                    "NF351",
                    "warn",
                    f"output '{name}' of an image changes by {change:.2g} of its largest value with "
                    f"the images "
                    "beside it",
                )
            )
    return findings
