"""The report for people, on a terminal or in a log."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from normfold.reporting import phrases
from normfold.reporting.report import Report, Site

_NAMES_SHOWN = 6
_ROWS_SHOWN = 8
_LOG_WIDTH = 120
_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def print_report(report: Report, file: TextIO, *, verbose: int = 0) -> None:
    """Prints ``report``: the summary first, then the verification, then what was kept and why.

    Args:
        report: of any command.
        file: where to; colours only if it is a terminal.
        verbose: 1 lists what was folded and every output, provider and message too.
    """
    console = _console(file)
    console.print(_headline(report))
    for line in phrases.finding_lines(report, all_of_them=bool(verbose)):
        console.print(_text(f"  {line}"))
    for line in phrases.consistency_lines(report, all_of_them=bool(verbose)):
        console.print(_text(f"  {line}"))
    for line in phrases.measurements(report):
        console.print(_text(f"  {line}"))
    _print_verification(console, report, verbose)
    _print_kept(console, report.sites, verbose)
    if verbose:
        _print_changed(console, report.sites)
    if verbose and report.timing:
        console.print(
            Text("  seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in report.timing.items()))
        )


def print_headline(report: Report, file: TextIO) -> None:
    """Prints the first line alone: the model and what became of it."""
    _console(file).print(_headline(report))


def print_total(report: Report, file: TextIO) -> None:
    """Prints the last line of a batch."""
    _console(file).print(_text(phrases.total(report)))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves it to the caller; rich would end the process with the exit code of a mismatch."""
        raise BrokenPipeError


def _console(file: TextIO) -> Console:
    console = _Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if console.is_terminal:
        return console
    return _Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, width=_LOG_WIDTH)


def _headline(report: Report) -> Text:
    headline = _text(f"{phrases.title(report)}: " if report.inputs else "")
    headline.append(_text(phrases.summary(report), _STYLES.get(report.verification.verdict or "", "")))
    return headline


def _print_verification(console: Console, report: Report, verbose: int) -> None:
    verification = report.verification
    proof = phrases.algebra(report)
    if proof is not None:
        console.print(_text(f"  {proof}"))
    lines = phrases.rounding(report)
    shown = lines if verbose else lines[:_ROWS_SHOWN]
    for line in shown:
        console.print(_text(f"  {line}"))
    if len(shown) < len(lines):
        console.print(_text(f"  … and {len(lines) - len(shown)} more (-v)"))
    for line in phrases.providers(report):
        console.print(_text(f"  {line}"))
    for message in verification.messages:
        console.print(_text(f"  {message}"))


def _print_kept(console: Console, sites: list[Site], verbose: int) -> None:
    groups = phrases.kept_by_code(sites)
    if not groups:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=True, header_style="bold")
    table.add_column("  kept", justify="right", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_column("values", overflow="fold")
    for code, title, _, members in groups:
        names = [site.site for site in members]
        shown = names if verbose else names[:_NAMES_SHOWN]
        rest = f" … and {len(names) - len(shown)} more (-v)" if len(shown) < len(names) else ""
        reason = title or (members[0].reason or "")
        table.add_row(str(len(members)), _text(code), _text(reason), _text(", ".join(shown) + rest))
    console.print(table, soft_wrap=False)
    if verbose:
        for _, _, _, members in groups:
            for site in members:
                console.print(_text(f"  {site.site} ({site.kind}): kept, {site.code}: {site.reason}"))
    console.print(_text("  normfold explain CODE says what would unblock it"))


def _print_changed(console: Console, sites: list[Site]) -> None:
    for site in sites:
        if site.action != "kept":
            console.print(_text(f"  {phrases.site_line(site)}"))


def _text(line: str, style: str = "") -> Text:
    """A line without control characters: names come from the model, and a terminal obeys them."""
    return Text("".join(char if char.isprintable() else "?" for char in line), style=style)
