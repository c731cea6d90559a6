from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One reason code.

    Attributes:
        id: ``NF`` and three digits.
        title: a short phrase for tables.
        what: what was seen.
        why: why that stops a fold, fails a verification or deserves a warning.
        unblock: what the user can do about it.
    """

    id: str
    title: str
    what: str
    why: str
    unblock: str
