"""``normfold fold``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .parameters import (
    MODEL,
    fold_options,
    presentation_options,
    require_data_for_image,
    verification_options,
)
from .session import INTERRUPTED, Announce, Presentation, attempt, conclude

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
    report_files: tuple[Path, ...],
    output_format: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> int:
    """Fold every BatchNorm and constant affine that a weight can take, prove the result, write it.

    IN is an ONNX model, or '-' for standard input. With several, OUT is a folder.
    """
    if check and dry_run:
        raise click.UsageError("--check and --dry-run exclude each other", ctx)
    if (check or dry_run) and output is not None:
        raise click.UsageError(f"--{'check' if check else 'dry-run'} writes nothing; leave out -o", ctx)
    if not (check or dry_run) and output is None:
        raise click.UsageError("-o OUT is required (or --check, or --dry-run)", ctx)
    require_data_for_image(ctx, options)
    outputs = _outputs(ctx, models, output)
    presentation = Presentation(output_format, report_files, quiet, verbose, to_stderr=output == _STREAM)
    options |= {"verify": not no_verify, "provenance": not no_provenance}
    reports: list[Report] = []
    for model, out in zip(models, outputs, strict=True):
        report = attempt("fold", partial(_fold, model, out, check, options), quiet=quiet)
        reports.append(report)
        if report.exit == INTERRUPTED:
            break
    return conclude("fold", reports, presentation)


def _fold(model: str, output: str | None, check: bool, options: dict[str, Any], announce: Announce) -> Report:
    from normfold.api import fold
    from normfold.reporting.check import pending_folds

    result = fold(model, output, progress=announce, **options)
    if check and result.changed:
        result.report.exit = 1
        result.report.findings += pending_folds(result.report)
    return result.report


def _outputs(ctx: click.Context, models: tuple[str, ...], output: str | None) -> list[str | None]:
    """Gives the output of each model.

    Raises:
        click.UsageError: several models and no folder, or two models of the same name.
    """
    if output is None:
        return [None] * len(models)
    to_folder = output != _STREAM and (output.endswith("/") or Path(output).is_dir())
    if not to_folder:
        if len(models) > 1:
            raise click.UsageError("with several models, -o must be a folder", ctx)
        return [output]
    if _STREAM in models:
        raise click.UsageError("a model from standard input has no name to be written under in a folder", ctx)
    names = [Path(model).name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.UsageError(f"two models named {twice!r} would be written to the same file", ctx)
    return [str(Path(output) / name) for name in names]
