"""``normfold consistency``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .parameters import MODEL, data_options, presentation_options, require_data_for_image
from .progress import Display
from .session import Presentation, run

if TYPE_CHECKING:
    from normfold.reporting.report import Report


@click.command("consistency")
@click.argument("model", type=MODEL, metavar="[IN]", required=False)
@click.option(
    "--torch",
    "factory",
    metavar="PACKAGE.MODULE:FACTORY",
    help="Examine the torch module that FACTORY makes, beside the graph exported from it, instead of IN.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=str, dir_okay=False),
    metavar="W.pt",
    help="State dictionary for the module of --torch.",
)
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
    model: str | None,
    factory: str | None,
    weights: str | None,
    presentation: Presentation,
    **options: Any,
) -> int:
    """Look for what makes a model mean something else in evaluation than it meant in training.

    IN is an ONNX model, or '-' for standard input. With --data the running statistics are held against the
    data, and training mode against evaluation. Nothing is written. Exit 1 if there are errors, 3 if there are
    too few data to judge.
    """
    require_data_for_image(ctx, options)
    if (model is None) == (factory is None):
        raise click.UsageError("give either a model or --torch", ctx)
    if weights is not None and factory is None:
        raise click.UsageError("--weights belong to the module of --torch, which is missing", ctx)
    if factory is not None:
        _require_for_torch(ctx, options)

    def work(display: Display) -> Report:
        from normfold.commands.consistency import check_consistency, check_module

        if factory is None:
            assert model is not None
            return check_consistency(model, progress=display, **options)
        # As with python -m, modules of the working folder can be imported.
        sys.path.insert(0, str(Path.cwd()))
        chosen = {name: options[name] for name in ("data", "image", "fail_on", "baseline")}
        return check_module(factory, weights=weights, progress=display, **chosen)

    return run("consistency", work, presentation)


def _require_for_torch(ctx: click.Context, options: dict[str, Any]) -> None:
    """Refuses what does not go with ``--torch``.

    Raises:
        click.UsageError: ``--data`` is missing, or an option is for ONNX models alone.
    """
    if options["data"] is None:
        raise click.UsageError("--torch needs --data", ctx)
    if options["freeze_initializers"]:
        raise click.UsageError("--freeze-initializers does not go with --torch", ctx)
