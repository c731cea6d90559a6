"""``normfold consistency``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .parameters import MODEL, data_options, presentation_options, require_data_for_image
from .session import Announce, Presentation, attempt, conclude

if TYPE_CHECKING:
    from normfold.reporting.report import Report


@click.command("consistency")
@click.argument("model", type=MODEL, metavar="IN")
@data_options
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warn"]),
    default="error",
    show_default=True,
    help="Exit 1 on findings of this severity or worse.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=str, dir_okay=False),
    metavar="FILE",
    help="Accept the findings of an earlier run: the file that --report FILE.json wrote.",
)
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
    report_files: tuple[Path, ...],
    output_format: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> int:
    """Look for what makes a model mean something else in evaluation than it meant in training.

    IN is an ONNX model, or '-' for standard input. With --data the running statistics are held against the
    data, and training mode against evaluation. Nothing is written. Exit 1 if there are errors, 3 if there are
    too few data to judge.
    """
    require_data_for_image(ctx, options)

    def work(announce: Announce) -> Report:
        from normfold.api import check_consistency

        return check_consistency(model, progress=announce, **options)

    presentation = Presentation(output_format, report_files, quiet, verbose)
    return conclude("consistency", [attempt("consistency", work, quiet=quiet)], presentation)
