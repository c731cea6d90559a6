"""``normfold inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .parameters import MODEL, fold_options, presentation_options
from .progress import Display
from .session import Presentation, attempt, conclude

if TYPE_CHECKING:
    from normfold.reporting.report import Report


@click.command("inspect")
@click.argument("model", type=MODEL, metavar="IN")
@fold_options
@presentation_options
def command(
    model: str,
    report_files: tuple[Path, ...],
    output_format: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> int:
    """List every normalisation and constant affine of a model, and what a fold would do to each.

    IN is an ONNX model, or '-' for standard input. Nothing is proven and nothing is written.
    """

    def work(display: Display) -> Report:
        from normfold.api import inspect

        return inspect(model, progress=display, **options)

    # Every site is what this command is for.
    presentation = Presentation(output_format, report_files, quiet, verbose + 1)
    return conclude("inspect", attempt("inspect", work, quiet=quiet), presentation)
