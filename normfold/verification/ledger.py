"""Collects what speaks against a pass, and draws the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from normfold.reporting.report import Verdict

Weight = Literal["fail", "inconclusive", "warning"]
_ORDER: tuple[Weight, ...] = ("fail", "inconclusive", "warning")


@dataclass
class Ledger:
    """Remarks with their weight. Any failure fails; otherwise anything inconclusive is inconclusive."""

    _remarks: list[tuple[Weight, str]] = field(default_factory=list)

    def add(self, weight: Weight, code: str, sentence: str) -> None:
        """Enters one remark, once."""
        remark = (weight, f"{code}: {sentence}")
        if remark not in self._remarks:
            self._remarks.append(remark)

    def has(self, weight: Weight) -> bool:
        """Whether any remark has this weight."""
        return any(found == weight for found, _ in self._remarks)

    @property
    def verdict(self) -> Verdict:
        """What follows from all remarks."""
        if self.has("fail"):
            return "fail"
        return "inconclusive" if self.has("inconclusive") else "pass"

    @property
    def messages(self) -> list[str]:
        """All remarks, the heaviest first."""
        return [text for weight in _ORDER for found, text in self._remarks if found == weight]
