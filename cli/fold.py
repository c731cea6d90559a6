"""``normfold fold``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .parameters import (
    MODEL,
    fold_options,
    form_options,
    presentation_options,
    require_data_for_image,
    verification_options,
)
from .progress import Display
from .session import Presentation, run

if TYPE_CHECKING:
    from normfold.reporting.report import Report

_STREAM = "-"


@click.command("fold")
@click.argument("models", nargs=-1, required=True, type=MODEL, metavar="IN...")
@click.option(
    "-o",
    "--output",
    type=MODEL,
    metavar="OUT|DIR/",
    help="Where to write: a file, '-' for standard output, or a folder. May be the input itself.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    metavar="N",
    help="Fold in N processes. Without it, in this one, one model after another.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Fold on the Dask cluster with this scheduler, such as tcp://host:8786.",
)
@click.option("--force", is_flag=True, help="Fold again what an earlier run has written to the folder.")
@click.option(
    "--check", is_flag=True, help="Write nothing; exit 1 if anything would change, after verifying."
)
@click.option("--dry-run", is_flag=True, help="Write nothing; exit as a fold would.")
@click.option("--no-verify", is_flag=True, help="Skip the proof; the report says so.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warn"]),
    help="Fold nothing and exit 1 if normfold consistency finds something of this severity or worse.",
)
@click.option("--no-provenance", is_flag=True, help="Do not record in the model's metadata what was folded.")
@fold_options
@form_options
@verification_options
@presentation_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    output: str | None,
    check: bool,
    dry_run: bool,
    no_verify: bool,
    no_provenance: bool,
    jobs: int | None,
    dask: str | None,
    force: bool,
    presentation: Presentation,
    **options: Any,
) -> int:
    """Fold every BatchNorm and constant affine that a weight can take, prove the result, write it.

    IN is an ONNX model, a folder of them, a pattern ('models/**/*.onnx'), a URL, or '-' for standard
    input. With several, OUT is a folder that keeps their sub-folders, and what an earlier run has written
    there is skipped while nothing has changed.
    """
    if check and dry_run:
        raise click.UsageError("--check and --dry-run exclude each other", ctx)
    if (check or dry_run) and output is not None:
        raise click.UsageError(f"--{'check' if check else 'dry-run'} writes nothing; leave out -o", ctx)
    if not (check or dry_run) and output is None:
        raise click.UsageError("-o OUT is required (or --check, or --dry-run)", ctx)
    require_data_for_image(ctx, options)
    presentation = replace(presentation, to_stderr=output == _STREAM)
    options |= {"verify": not no_verify, "provenance": not no_provenance}
    if not _is_batch(ctx, models, output, jobs, dask):
        work = partial(_fold, models[0], _output(models[0], output), check, options)
        return run("fold", work, presentation)
    from .batch import fold_batch

    return fold_batch(models, output, presentation, jobs=jobs, dask=dask, force=force, check=check, **options)


def _fold(model: str, output: str | None, check: bool, options: dict[str, Any], display: Display) -> Report:
    from normfold.commands.fold import fold
    from normfold.reporting.check import pending_folds

    result = fold(model, output, progress=display, **options)
    if check and result.changed:
        result.report.exit = 1
        result.report.findings += pending_folds(result.report)
    return result.report


def _is_batch(
    ctx: click.Context, models: tuple[str, ...], output: str | None, jobs: int | None, dask: str | None
) -> bool:
    """Whether any number of models is meant, however many there are.

    Raises:
        click.UsageError: they would all be written to one file, or have no names to be written under.
    """
    from normfold.batch.selection import SUFFIX, is_many

    if jobs is not None and dask is not None:
        raise click.UsageError("--jobs and --dask exclude each other", ctx)
    many = len(models) > 1 or jobs is not None or dask is not None or any(map(is_many, models))
    if not many:
        return False
    if output is not None and (output == _STREAM or _is_file(output) or output.endswith(SUFFIX)):
        raise click.UsageError("with several models, -o must be a folder", ctx)
    if _STREAM in models:
        raise click.UsageError("a model from standard input cannot be one of several", ctx)
    return True


def _is_file(output: str) -> bool:
    path = Path(output)
    return path.exists() and not path.is_dir()


def _output(model: str, output: str | None) -> str | None:
    """The file to write, where ``output`` may be the folder that it goes into."""
    from normfold.batch.selection import join
    from normfold.urls import is_url, plain_path

    if output is None or output == _STREAM:
        return output
    to_folder = output.endswith("/") or (not is_url(output) and Path(plain_path(output)).is_dir())
    if not to_folder:
        return output
    if model == _STREAM:
        raise click.UsageError("a model from standard input has no name to be written under in a folder")
    return join(output, model.rpartition("/")[2])
