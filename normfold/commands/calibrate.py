"""``normfold.calibrate``: running statistics estimated anew from data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from normfold.commands.arguments import image_options
from normfold.commands.run import Run
from normfold.errors import InputError
from normfold.loading import ModelLike, Source
from normfold.progress import Progress
from normfold.reporting.report import Report

if TYPE_CHECKING:
    from normfold.inputs import ImageOptions
    from normfold.inputs.options import DataSource


@dataclass(frozen=True)
class CalibrationResult:
    """A model with running statistics estimated from data.

    Attributes:
        model: the new model.
        report: how its layers and outputs changed.
    """

    model: ir.Model
    report: Report


def calibrate(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    data: DataSource,
    image: str | ImageOptions | None = None,
    freeze_initializers: bool = False,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Estimates the running statistics of every BatchNorm again: those of the data, layer by layer.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        output: path of the result (``-`` for standard output); not the input's. Written atomically.
        data: real inputs: a path, or arrays by input name with samples along axis 0.
        image: how images become inputs; see ``VerifyArguments``.
        freeze_initializers: initializers that are also graph inputs are constants. Inputs that held old
            statistics are gone from the result.
        progress: is called with the name of each phase when it begins.

    Returns:
        The new model and the report.

    Raises:
        InputError: the model, the data or an option cannot be used; the output is the input.
        OutputError: the result cannot be written.
        MissingDependency: images need Pillow.
    """
    with Run("calibrate", progress) as run:
        source = run.load(model)
        if output is not None and source.is_file(output):
            raise InputError(
                f"{os.fspath(output)}: calibrate does not write over its input; give -o another name",
                code="NF900",
            )
        calibrated = _calibrated(run, source, data, image_options(image), freeze_initializers)
        if output is not None:
            with run.phase("write"), source.stage(calibrated, output, changed=True) as staged:
                run.report.outputs.append(staged.publish().describe())
    return CalibrationResult(calibrated, run.report)


def _calibrated(
    run: Run, source: Source, data: DataSource, image: ImageOptions | None, freeze_initializers: bool
) -> ir.Model:
    """Estimates the running statistics anew; fills the report's findings with what that cannot repair."""
    from normfold.consistency.batches import DataBatches, data_record
    from normfold.consistency.calibration import calibrate
    from normfold.consistency.overridable import frozen, reopen
    from normfold.consistency.record import calibration_record, named

    with run.phase("calibrate"):
        model = frozen(source.model) if freeze_initializers else source.model
        done = calibrate(model, DataBatches(model, data, image), progress=run.progress)
        if model is not source.model:
            reopen(done.model, source.model)
    run.report.findings += [named(finding) for finding in done.findings]
    run.report.consistency = calibration_record(done) | {"data": data_record(data)}
    run.report.summary = {"layers": len(done.layers), "images": done.images}
    return done.model
