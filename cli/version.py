"""``normfold --version``."""

from __future__ import annotations

import click


def print_versions(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Prints one line per package that results depend on."""
    if not wanted or ctx.resilient_parsing:
        return
    from normfold.reporting.environment import tool_versions

    versions = tool_versions()
    click.echo(f"normfold {versions.pop('version')}")
    del versions["name"]
    for package, version in versions.items():
        click.echo(f"{package} {version}")
    click.echo(_providers())
    ctx.exit()


def _providers() -> str:
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            return "onnxruntime is not installed: pip install 'normfold[cpu]' or 'normfold[cuda]'"
        return f"onnxruntime cannot be imported: {' '.join(str(error).split())}"
    return f"execution providers: {', '.join(onnxruntime.get_available_providers())}"
