"""``normfold.check_consistency``: does a model mean in evaluation what it meant in training?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from normfold.commands.arguments import image_options
from normfold.commands.run import Run
from normfold.errors import ConsistencyFailed, Inconclusive
from normfold.loading import ModelLike, Source
from normfold.progress import Progress
from normfold.reporting.report import Report

if TYPE_CHECKING:
    from normfold.consistency.findings import FailOn, Key
    from normfold.folding import Prepared
    from normfold.inputs import ImageOptions
    from normfold.inputs.options import DataSource

_SEVERITIES = ("error", "warn", "info")


def check_consistency(
    model: ModelLike,
    *,
    data: DataSource | None = None,
    image: str | ImageOptions | None = None,
    fail_on: FailOn = "error",
    baseline: str | os.PathLike[str] | None = None,
    freeze_initializers: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Looks for what makes a model mean something else in evaluation than it meant in training.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        data: real inputs to hold the running statistics against: a path, or arrays by input name, samples
            along axis 0.
        image: how images become inputs; see ``VerifyArguments``.
        fail_on: severity from which on a finding makes ``report.exit`` 1.
        baseline: JSON report of an earlier run; what it holds is accepted, and left out of the report.
        freeze_initializers: initializers that are also graph inputs are constants.
        progress: is called with the name of each phase when it begins.

    Returns:
        The report. ``report.exit`` is 0, 1 where there are findings to fail on, or 3 where there were too few
        data to judge.

    Raises:
        InputError: the model, the data, the baseline or an option cannot be used.
        MissingDependency: images need Pillow.
    """
    from normfold.consistency.findings import read_baseline

    with Run("consistency", progress) as run:
        accepted = read_baseline(baseline) if baseline is not None else frozenset()
        source = run.load(model)
        examine(run, source, freeze_initializers=freeze_initializers)
        conclusive = data is None or _compare_statistics(
            run, source, data, image_options(image), freeze_initializers
        )
        _settle(run.report, fail_on, accepted, conclusive)
    return run.report


def check_module(
    factory: str,
    data: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    image: str | ImageOptions | None = None,
    fail_on: FailOn = "error",
    baseline: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """As ``check_consistency``, on a torch module, with its exported and folded graph side by side.

    Args:
        factory: ``package.module:factory``, which is called without arguments.
        data: ``.npz`` keyed by the parameters of ``forward``, ``.npy``, or a folder of either or of images;
            axis 0 counts images.
        weights: state dictionary for the module.
        image: how images become inputs, with their size; see ``VerifyArguments``.
        fail_on: as for ``check_consistency``.
        baseline: as for ``check_consistency``.
        progress: is called with the name of each phase when it begins.

    Raises:
        InputError: the module, the data or the baseline cannot be used.
        MissingDependency: torch is not installed.
    """
    from normfold.consistency.findings import read_baseline

    with Run("consistency", progress) as run:
        accepted = read_baseline(baseline) if baseline is not None else frozenset()
        conclusive = _examine_module(run, factory, weights, data, image_options(image))
        _settle(run.report, fail_on, accepted, conclusive)
    return run.report


def examine(run: Run, source: Source, *, freeze_initializers: bool) -> Prepared:
    """Fills the report's findings with what the model alone betrays of training and evaluation.

    Returns:
        The model, prepared; it serves one fold.
    """
    from normfold.consistency.static import findings_in
    from normfold.folding import prepare

    with run.building("prepare"):
        prepared = prepare(source.model, freeze_initializers=freeze_initializers)
    with run.building("examine"):
        run.report.findings += findings_in(prepared.workspace)
    return prepared


def _compare_statistics(
    run: Run, source: Source, data: DataSource, image: ImageOptions | None, freeze_initializers: bool
) -> bool:
    """Adds what data say of the running statistics; returns whether they were enough to judge."""
    from normfold.consistency.batches import DataBatches, data_record
    from normfold.consistency.drift import data_findings
    from normfold.consistency.overridable import frozen
    from normfold.consistency.record import comparison_record, named

    with run.phase("statistics"):
        model = frozen(source.model) if freeze_initializers else source.model
        found = data_findings(model, DataBatches(model, data, image), progress=run.progress)
    run.report.findings += [named(finding) for finding in found.findings]
    run.report.consistency = comparison_record(found) | {"data": data_record(data)}
    return found.conclusive


def _examine_module(
    run: Run,
    factory: str,
    weights: str | os.PathLike[str] | None,
    data: str | os.PathLike[str],
    image: ImageOptions | None = None,
) -> bool:
    """Adds what a torch module, its graph and data say; returns whether the data were enough."""
    from normfold.consistency.batches import data_record
    from normfold.consistency.record import comparison_record, named
    from normfold.consistency.static import static_findings
    from normfold.torch_modules.examination import examine_module

    with run.phase("module"):
        run.report.inputs.append({"path": factory})
        found = examine_module(factory, weights, data, image)
    run.report.findings += static_findings(found.model)
    run.report.findings += map(named, (*found.module.findings, *found.statistics.findings))
    run.report.consistency = comparison_record(found.statistics) | {
        "data": data_record(data),
        "module": {
            "outputs": [vars(output) for output in found.module.outputs],
            "buffers": [vars(buffer) for buffer in found.module.buffers],
            "train_skipped": found.module.train_skipped,
        },
    }
    return found.statistics.conclusive


def _settle(report: Report, fail_on: FailOn, accepted: frozenset[Key], conclusive: bool) -> None:
    """Takes out the accepted findings, counts the others, and decides about the exit code."""
    from normfold.consistency.findings import at_least, ordered, without

    found = ordered(report.findings)
    report.findings = without(found, accepted)
    report.summary = {
        **{level: sum(f.severity == level for f in report.findings) for level in _SEVERITIES},
        "accepted": len(found) - len(report.findings),
    }
    if at_least(report.findings, fail_on):
        report.exit = ConsistencyFailed.exit_code
    elif not conclusive:
        report.exit = Inconclusive.exit_code
