"""``normfold verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .parameters import presentation_options, require_data_for_image, two_models, verification_options
from .progress import Display
from .session import Presentation, run

if TYPE_CHECKING:
    from normfold.reporting.report import Report


@click.command("verify")
@two_models
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
    presentation: Presentation,
    **options: Any,
) -> int:
    """Compare model B with the original A: exit 0 if they mean the same, 1 if not, 3 if that is undecided."""
    require_data_for_image(ctx, options)

    def work(display: Display) -> Report:
        from normfold.commands.verify import verify

        return verify(a, b, progress=display, **options)

    return run("verify", work, presentation)
