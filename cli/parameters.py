"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = click.Path(path_type=str, allow_dash=True)


def _shape(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in values:
        name, _separator, text = value.rpartition("=")
        try:
            sizes = tuple(int(size) for size in text.split(",")) if text else ()
        except ValueError:
            sizes = (-1,)
        if not name or any(size < 0 for size in sizes):
            raise click.BadParameter(f"{value!r} is not of the form name=1,3,224,224")
        shapes[name] = sizes
    return shapes


def _dim(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    sizes = {}
    for value in values:
        name, _separator, text = value.rpartition("=")
        if not name or not text.isdecimal():
            raise click.BadParameter(f"{value!r} is not of the form batch=4")
        sizes[name] = int(text)
    return sizes


def _report_files(_: click.Context, __: click.Parameter, values: tuple[Path, ...]) -> tuple[Path, ...]:
    from normfold.errors import InputError
    from normfold.reporting.files import check_suffix

    for path in values:
        try:
            check_suffix(path)
            if not path.parent.is_dir():
                raise click.BadParameter(f"the folder of report {str(path)!r} does not exist")
        except InputError as error:
            raise click.BadParameter(str(error)) from error
    return values


def _stack(decorators: list[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


presentation_options = _stack(
    [
        click.option(
            "--report",
            "report_files",
            type=click.Path(path_type=Path, dir_okay=False),
            multiple=True,
            callback=_report_files,
            metavar="FILE",
            help="Write the report to FILE; the format follows the suffix "
            "(.json, .md, .html, .sarif, .junit.xml). Repeatable.",
        ),
        click.option(
            "--format",
            "output_format",
            type=click.Choice(["text", "json", "github"]),
            default="text",
            show_default=True,
            help="Format of the report on standard output; github is text with workflow annotations.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option("-v", "--verbose", count=True, help="Print every site, output and message."),
    ]
)
"""How a report is shown."""

fold_options = _stack(
    [
        click.option("--skip", multiple=True, metavar="RULE", help="Do not apply RULE. Repeatable."),
        click.option(
            "--keep",
            multiple=True,
            metavar="NAME",
            help="Leave the producer of value NAME as it is. Repeatable.",
        ),
        click.option(
            "--freeze-initializers",
            is_flag=True,
            help="Treat initializers that are also graph inputs as constants.",
        ),
        click.option(
            "--fold-norm-affine",
            is_flag=True,
            help="Fold the affine of a GroupNorm, InstanceNorm or LayerNorm into a following linear "
            "operator even where that removes no node.",
        ),
    ]
)
"""What a fold may do."""

input_options = _stack(
    [
        click.option(
            "--data",
            "--inputs",
            "data",
            type=click.Path(path_type=str),
            metavar="PATH",
            help="Real inputs: an .npz keyed by input name (axis 0 is samples), an .npy, or a folder of "
            "them, of ONNX test data sets, or of images.",
        ),
        click.option(
            "--image",
            metavar="size=224,mean=…,std=…",
            help="How images in --data become inputs: (pixel / 255 − mean) / std, numbers of channels "
            "joined by '/'. Also scale=1, layout=nhwc, order=bgr.",
        ),
        click.option(
            "--shape",
            "shapes",
            multiple=True,
            callback=_shape,
            metavar="NAME=1,3,224,224",
            help="Shape of an input with dynamic axes. Repeatable.",
        ),
        click.option(
            "--dim",
            "dims",
            multiple=True,
            callback=_dim,
            metavar="NAME=SIZE",
            help="Size of a named dynamic axis. Repeatable.",
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated inputs."),
    ]
)
"""Which inputs the models run on."""

verification_options = _stack(
    [
        input_options,
        click.option(
            "--ep",
            "providers",
            multiple=True,
            metavar="NAME",
            help="Execution provider that must run both models, such as cpu or cuda. Repeatable.",
        ),
        click.option(
            "--thorough", is_flag=True, help="All kinds and sizes of inputs, without a time budget."
        ),
        click.option(
            "--allow-nonfinite",
            is_flag=True,
            help="Accept NaN and infinities where the original has the same.",
        ),
        click.option(
            "--rtol", type=float, help="Also bound the relative difference of every output element."
        ),
        click.option(
            "--atol", type=float, help="Also bound the absolute difference of every output element."
        ),
        click.option(
            "--save-failure",
            type=click.Path(path_type=str, file_okay=False),
            metavar="DIR",
            help="Where the models differ, save the smallest pair that shows it to DIR, with its inputs.",
        ),
    ]
)
"""How a proof is made."""
