"""The report as one self-contained HTML page: no script, no network, readable on a phone, light and dark."""

from normfold.reporting.html.page import render_html

__all__ = ["render_html"]
