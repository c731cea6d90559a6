"""``normfold explain``."""

from __future__ import annotations

import click


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
        from normfold.reporting.environment import tool_versions
        from normfold.reporting.json import render_json
        from normfold.reporting.report import Report

        codes = [vars(item) for item in chosen]
        click.echo(render_json(Report("explain", tool=tool_versions(), summary={"codes": codes})), nl=False)
    elif code is None:
        for item in chosen:
            click.echo(f"{item.id}  {item.title}")
    else:
        item = chosen[0]
        click.echo(f"{item.id}: {item.title}\n")
        for heading, text in (("What", item.what), ("Why", item.why), ("Unblock", item.unblock)):
            click.echo(click.wrap_text(f"{heading}: {text}", width=100, subsequent_indent="  "))
    return 0
