"""``normfold inspect``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .parameters import MODEL, fold_options, presentation_options
from .progress import Display
from .session import Presentation, run

if TYPE_CHECKING:
    from normfold.reporting.report import Report


@click.command("inspect")
@click.argument("model", type=MODEL, metavar="IN")
@fold_options
@presentation_options
def command(
    model: str,
    presentation: Presentation,
    **options: Any,
) -> int:
    """List every normalisation and constant affine of a model, and what a fold would do to each.

    IN is an ONNX model, or '-' for standard input. Nothing is proven and nothing is written.
    """

    def work(display: Display) -> Report:
        from normfold.commands.inspect import inspect

        return inspect(model, progress=display, **options)

    # Every site is what this command is for.
    presentation = replace(presentation, verbose=presentation.verbose + 1)
    return run("inspect", work, presentation)
