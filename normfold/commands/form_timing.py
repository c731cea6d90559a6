"""Measures the forms of a model's normalisations on the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normfold.errors import Inconclusive
from normfold.loading import Source
from normfold.options import FoldOptions
from normfold.planning.norm_forms import FORMS
from normfold.planning.targets import Judge

if TYPE_CHECKING:
    from normfold.commands.arguments import VerifyArguments

_PROVIDERS = {"ort-cuda": "cuda", "tensorrt": "tensorrt", "openvino": "openvino"}
KEEP = "keep"


@dataclass(frozen=True)
class Timed:
    """The whole model with its normalisations in one form.

    Attributes:
        form: what ``--groupnorm`` would be given.
        seconds: median of one run.
        speedup: how many times as fast as the same fold that leaves normalisations as they are.
        interval: 95 % bootstrap interval of ``speedup``.
    """

    form: str
    seconds: float
    speedup: float
    interval: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """The entry of the report."""
        return vars(self) | {"interval": list(self.interval)}


def forms_by_speed(
    source: Source, options: FoldOptions, judge: Judge, checks: VerifyArguments
) -> list[Timed]:
    """Folds a model once for each form, and times each against the fold that leaves normalisations alone.

    Args:
        source: the model.
        options: of the fold.
        judge: is asked about each form.
        checks: where to run, and on which inputs; the first provider counts, or that of the target.

    Returns:
        The forms that change something, and ``keep``: first the one to take, then the others by the lower
        end of their intervals. Forms that make the same model are one.

    Raises:
        Inconclusive: the provider could not be exercised.
        MissingDependency: onnxruntime is not installed.
    """
    from normfold.benchmarking import BenchOptions
    from normfold.commands.arguments import image_options
    from normfold.commands.bench import bench
    from normfold.folding import fold_model

    kept = fold_model(source.model, replace(options, groupnorm=KEEP))
    provider = next(iter(checks.get("providers", ())), None) or _PROVIDERS.get(options.target or "", "cpu")
    settings = BenchOptions(
        providers=(provider,),
        provider_options=checks.get("provider_options", {}),
        data=checks.get("data"),
        image=image_options(checks.get("image")),
        shapes=checks.get("shapes", {}),
        dims=checks.get("dims", {}),
        seed=checks.get("seed", 0),
    )
    usual = fold_model(source.model, options, judge=judge)
    preferred, models = KEEP, {KEEP: kept.model}
    timed: list[Timed] = []
    known: list[Mapping[str, str | None]] = []
    kept_seconds: list[float] = []
    refused: list[str] = []
    for form in FORMS:
        folded = fold_model(source.model, replace(options, groupnorm=form), judge=judge)
        if not any(folded.forms.values()) or folded.forms in known:
            continue
        known.append(folded.forms)
        models[form] = folded.model
        preferred = form if folded.forms == usual.forms else preferred
        report = bench(kept.model, folded.model, settings)
        for found in report.measurements:
            timed.append(Timed(form, found.b, found.speedup, found.interval))
            kept_seconds.append(found.a)
        refused.extend(finding.message for finding in report.findings)
    if known and not timed:
        raise Inconclusive(f"no form of the normalisations could be timed: {refused[0]}", code="NF204")
    if timed:
        timed.append(Timed(KEEP, min(kept_seconds), 1.0, (1.0, 1.0)))

    def is_faster(form: str, than: str) -> bool:
        found = bench(models[than], models[form], settings).measurements
        return bool(found) and found[0].interval[0] > 1.0

    return ranked(timed, preferred, is_faster)


def ranked(timed: list[Timed], preferred: str, is_faster: Callable[[str, str], bool]) -> list[Timed]:
    """The form to take, then the others: what the target prefers, unless another is surely faster.

    Each form was timed against ``keep`` at a time of its own, and machines are not always as busy. So those
    that may be faster than the one in front are timed against it.

    Args:
        timed: every form.
        preferred: the one that would be taken untimed.
        is_faster: says of two forms, by name, whether the first is surely faster when they take turns.
    """
    # A lucky median comes with a wide interval.
    ordered = sorted(timed, key=lambda entry: (entry.form != preferred, -entry.interval[0]))
    first = next(iter(ordered), None)
    for entry in ordered[1:]:
        assert first is not None
        if entry.interval[1] > first.interval[0] and is_faster(entry.form, first.form):
            first = entry
    return sorted(ordered, key=lambda entry: (entry is not first, -entry.interval[0]))
