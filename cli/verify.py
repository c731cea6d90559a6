"""``normfold verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .parameters import MODEL, presentation_options, require_data_for_image, verification_options
from .progress import Display
from .session import Presentation, attempt, conclude

if TYPE_CHECKING:
    from normfold.reporting.report import Report


@click.command("verify")
@click.argument("a", type=MODEL, metavar="A")
@click.argument("b", type=MODEL, metavar="B")
@click.option(
    "--freeze-initializers",
    is_flag=True,
    help="Treat initializers that are also graph inputs as constants.",
)
@verification_options
@presentation_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    a: str,
    b: str,
    report_files: tuple[Path, ...],
    output_format: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> int:
    """Compare model B with the original A: exit 0 if they mean the same, 1 if not, 3 if that is undecided."""
    if a == b == "-":
        raise click.UsageError("only one of the two models can come from standard input", ctx)

    require_data_for_image(ctx, options)

    def work(display: Display) -> Report:
        from normfold.api import verify

        return verify(a, b, progress=display, **options)

    presentation = Presentation(output_format, report_files, quiet, verbose)
    return conclude("verify", attempt("verify", work, quiet=quiet), presentation)
