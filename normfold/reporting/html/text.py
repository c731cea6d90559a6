"""Text from a model on a page."""

from __future__ import annotations

from html import escape


def printed(text: str) -> str:
    """Escaped, and without characters that do not print: names come from the model."""
    return escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
