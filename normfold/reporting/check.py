"""What ``fold --check`` says of a model that is not in its folded form."""

from __future__ import annotations

from normfold.reporting import phrases
from normfold.reporting.report import Finding, Report


def pending_folds(report: Report) -> list[Finding]:
    """Returns one error for each site that a fold would change."""
    return [
        Finding("NF100", "error", f"would change: {phrases.site_line(site)}", site=site.site)
        for site in report.sites
        if site.action != "kept"
    ]
