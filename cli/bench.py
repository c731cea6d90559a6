"""``normfold bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .parameters import (
    input_options,
    presentation_options,
    provider_options,
    require_data_for_image,
    two_models,
)
from .progress import Display
from .session import Presentation, run

if TYPE_CHECKING:
    from normfold.reporting.report import Report


def _sizes(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    sizes = value.split(",")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise click.BadParameter(f"{value!r} is not of the form 1,8")
    return tuple(dict.fromkeys(map(int, sizes)))


@click.command("bench")
@two_models
@click.option(
    "--ep",
    "providers",
    multiple=True,
    default=("cpu",),
    show_default=True,
    metavar="NAME",
    help="Execution provider, such as cpu or cuda. Repeatable.",
)
@provider_options
@click.option("--batch", "batches", callback=_sizes, metavar="1,8", help="Sizes of an open batch axis.")
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Threads of one operator; 0 leaves the choice to onnxruntime.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=5),
    default=30,
    show_default=True,
    help="How often the two models take turns.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for one provider and batch size.",
)
@input_options
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
    """Time model B against A in onnxruntime, in turns: medians, and their ratio with its 95 % interval.

    A ratio above 1 means that B is faster. Exit 3 if a provider could not be exercised.
    """
    require_data_for_image(ctx, options)

    def work(display: Display) -> Report:
        from normfold.benchmarking import BenchOptions
        from normfold.commands.arguments import image_options
        from normfold.commands.bench import bench

        options["image"] = image_options(options["image"])
        return bench(a, b, BenchOptions(**options), progress=display)

    return run("bench", work, presentation)
