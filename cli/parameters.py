"""Options that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from .session import Presentation

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = click.Path(path_type=str, allow_dash=True)


def _shape(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _separator, text = value.rpartition("=")
        sizes = text.split(",") if text else []
        if not name or not all(map(_is_size, sizes)):
            raise click.BadParameter(f"{value!r} is not of the form name=1,3,224,224")
        _require_new(name, shapes)
        shapes[name] = tuple(map(int, sizes))
    return shapes


def _dim(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value in values:
        name, _separator, text = value.rpartition("=")
        if not name or not _is_size(text):
            raise click.BadParameter(f"{value!r} is not of the form batch=4")
        _require_new(name, sizes)
        sizes[name] = int(text)
    return sizes


def _provider_options(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for value in values:
        key, _separator, setting = value.partition("=")
        provider, _dot, name = key.partition(".")
        if not (provider and name and setting):
            raise click.BadParameter(f"{value!r} is not of the form cuda.prefer_nhwc=1")
        chosen = options.setdefault(provider, {})
        _require_new(name, chosen)
        chosen[name] = setting
    return options


def _is_size(text: str) -> bool:
    """Whether a text is a size that leaves something to compare."""
    return text.isascii() and text.isdecimal() and int(text) > 0


def _require_new(name: str, known: Mapping[str, object]) -> None:
    if name in known:
        raise click.BadParameter(f"{name!r} is given twice")


def _tolerance(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise click.BadParameter(f"{value} is not a finite number of at least 0")
    return value


def _data(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("the path is empty")
    return value


def require_data_for_image(ctx: click.Context, options: Mapping[str, Any]) -> None:
    """Refuses ``--image`` where there are no images.

    Raises:
        click.UsageError: ``--image`` without ``--data``.
    """
    if options["image"] is not None and options["data"] is None:
        raise click.UsageError("--image says how to read the images of --data, which is missing", ctx)


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


def _pair(ctx: click.Context, _: click.Parameter, value: str) -> str:
    if ctx.params.get("a") == value == "-":
        raise click.UsageError("only one of the two models can come from standard input", ctx)
    return value


def _time_limit(ctx: click.Context, _: click.Parameter, value: float | None) -> None:
    if value is not None:
        ctx.params |= {"proof_seconds": value, "budget_seconds": value}


two_models = _stack(
    [
        click.argument("a", type=MODEL, metavar="A"),
        click.argument("b", type=MODEL, metavar="B", callback=_pair),
    ]
)
"""Models A and B, one of which may come from standard input."""


_presentation = _stack(
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


def presentation_options(command: Callable[..., int]) -> Callable[..., int]:
    """How a report is shown: the command gets one ``presentation``."""

    @functools.wraps(command)
    def presented(
        *args: Any,
        output_format: str,
        report_files: tuple[Path, ...],
        quiet: bool,
        verbose: int,
        **options: Any,
    ) -> int:
        presentation = Presentation(output_format, report_files, quiet, verbose)
        return command(*args, presentation=presentation, **options)

    return _presentation(presented)


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
        click.option(
            "--target",
            type=click.Choice(["ort-cpu", "ort-cuda", "tensorrt", "openvino", "portable"]),
            help="Runtime that GroupNorm and InstanceNorm are spelled for; by default that of the first "
            "--ep, else ort-cpu.",
        ),
        click.option(
            "--groupnorm",
            type=click.Choice(
                [
                    "instancenorm",
                    "instancenorm-bn",
                    "layernorm",
                    "native",
                    "ms-groupnorm",
                    "primitive",
                    "keep",
                ]
            ),
            help="Spell GroupNorm and InstanceNorm in this form, whatever the target prefers.",
        ),
    ]
)
"""What a fold may do."""

form_options = _stack(
    [
        click.option(
            "--tune",
            is_flag=True,
            help="Time every form of GroupNorm on the model, and take the fastest whose proof passes.",
        ),
        click.option(
            "--allow-unstable",
            is_flag=True,
            help="Take forms of GroupNorm that lose accuracy on inputs with a large mean.",
        ),
    ]
)
"""How the form of a GroupNorm is found."""

data_options = _stack(
    [
        click.option(
            "--data",
            "--inputs",
            "data",
            type=click.Path(path_type=str),
            callback=_data,
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
    ]
)
"""Real inputs."""

input_options = _stack(
    [
        data_options,
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
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Seed of generated inputs.",
        ),
    ]
)
"""Which inputs the models run on."""

provider_options = click.option(
    "--ep-option",
    "provider_options",
    multiple=True,
    callback=_provider_options,
    metavar="EP.NAME=VALUE",
    help="Option of a provider named with --ep, such as cuda.prefer_nhwc=1. Repeatable.",
)
"""How onnxruntime is to set up a provider."""

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
        provider_options,
        click.option("--thorough", is_flag=True, help="All kinds and sizes of inputs, without a time limit."),
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            callback=_time_limit,
            expose_value=False,
            metavar="SECONDS",
            help="Time for the float64 proof of a fold (300 by default; what is left over is unproven), and "
            "for the float64 reference (60 by default; rounding is judged by the response to noise "
            "without it).",
        ),
        click.option(
            "--allow-nonfinite",
            is_flag=True,
            help="Accept NaN and infinities where the original has the same.",
        ),
        click.option(
            "--rtol",
            type=float,
            callback=_tolerance,
            help="Also bound the relative difference of every output element.",
        ),
        click.option(
            "--atol",
            type=float,
            callback=_tolerance,
            help="Also bound the absolute difference of every output element.",
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
