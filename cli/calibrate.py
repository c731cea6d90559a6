"""``normfold calibrate``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .parameters import MODEL, data_options, presentation_options
from .progress import Display
from .session import Presentation, run

if TYPE_CHECKING:
    from normfold.reporting.report import Report

_STREAM = "-"


@click.command("calibrate")
@click.argument("model", type=MODEL, metavar="IN")
@click.option(
    "-o",
    "--output",
    type=MODEL,
    required=True,
    metavar="OUT",
    help="Where to write: a file that is not the input, or '-' for standard output.",
)
@data_options
@click.option(
    "--freeze-initializers",
    is_flag=True,
    help="Treat initializers that are also graph inputs as constants.",
)
@presentation_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    output: str,
    data: str | None,
    presentation: Presentation,
    **options: Any,
) -> int:
    """Estimate the running statistics of every BatchNorm again, from data, and write a new model.

    IN is an ONNX model, or '-' for standard input. The weights stay as they are; normfold fold takes the
    result on.
    """
    if data is None:
        raise click.UsageError("--data is required: the statistics are taken from it", ctx)

    def work(display: Display) -> Report:
        from normfold.commands.calibrate import calibrate

        return calibrate(model, output, data=data, progress=display, **options).report

    presentation = replace(presentation, to_stderr=output == _STREAM)
    return run("calibrate", work, presentation)
