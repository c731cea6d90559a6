"""The command line: parses, calls ``normfold.commands``, renders. Nothing heavy is imported early."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from .interrupts import exit_code_of, interrupts
from .version import print_versions

COMMANDS = {
    "fold": "Fold a model, prove the result, write it.",
    "inspect": "List what a fold would do to a model.",
    "verify": "Compare two models.",
    "bench": "Time two models against each other.",
    "consistency": "Look for differences between training and evaluation.",
    "calibrate": "Estimate the running statistics again, from data.",
    "explain": "Say what a reason code means.",
}


_SIGNALLED = 128


class _LazyGroup(click.Group):
    """Imports a command's module only when that command runs: ``--help`` must not wait for onnx."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{cmd_name}", __name__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=print_versions,
    help="Print the versions of normfold, onnx and onnxruntime, and the execution providers.",
)
def group() -> None:
    """Fold BatchNorm and affines out of trained ONNX models, and prove that nothing changed.

    Exit codes: 0 fine, 1 findings or mismatch, 2 usage error, unreadable model or output that cannot be
    written, 3 inconclusive, 4 internal error, 130 interrupted, 143 terminated.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits."""
    # A stream that the caller closed is None.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = _run(arguments)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except BrokenPipeError:
            # What is still buffered has no reader; the interpreter would complain of it while it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    if code > _SIGNALLED:
        # Executors whose workers are gone, or a second signal, would complain while the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with interrupts():
            code = group.main(args=arguments, prog_name="normfold", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see {error.ctx.command_path} --help)"
        click.echo(f"normfold: error: {' '.join(error.format_message().split())}{hint}", err=True)
        return 2
    except click.Abort as error:
        return exit_code_of(error.__cause__)
    except KeyboardInterrupt as error:
        return exit_code_of(error)
    return code if isinstance(code, int) else 0
