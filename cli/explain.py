"""``normfold explain``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from normfold.codes import Code


@click.command("explain")
@click.argument("code", required=False, metavar="[CODE]")
@click.option(
    "--format", "output_format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.pass_context
def command(ctx: click.Context, code: str | None, output_format: str) -> int:
    """Say what a reason code means, why it matters, what would unblock it. Without CODE, list all codes."""
    from normfold.codes import CODES

    if code is None:
        chosen = list(CODES.values())
    else:
        found = CODES.get(code.upper())
        if found is None:
            raise click.UsageError(f"there is no code {code!r}; 'normfold explain' lists all", ctx)
        chosen = [found]
    if output_format == "json":
        text = _json(chosen)
    elif code is None:
        text = "".join(f"{item.id}  {item.title}\n" for item in chosen)
    else:
        text = _explanation(chosen[0])
    with contextlib.suppress(BrokenPipeError):
        click.echo(text, nl=False)
    return 0


def _json(codes: list[Code]) -> str:
    from normfold.reporting.environment import tool_versions
    from normfold.reporting.json import render_json
    from normfold.reporting.report import Report

    return render_json(
        Report("explain", tool=tool_versions(), summary={"codes": [vars(code) for code in codes]})
    )


def _explanation(code: Code) -> str:
    parts = [("What", code.what), ("Why", code.why), ("Unblock", code.unblock)]
    texts = [
        click.wrap_text(f"{heading}: {text}", width=100, subsequent_indent="  ") for heading, text in parts
    ]
    return "\n".join([f"{code.id}: {code.title}", "", *texts, ""])
