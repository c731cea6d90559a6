"""Norms in the spellings that networks have, to be exported many at a time."""

from __future__ import annotations

from models.norms.group_norms import GROUP_NORMS
from models.norms.relatives import RELATIVES
from models.norms.spelling import EPSILON, Norm, Spelling, Together

SPELLINGS: dict[str, Spelling] = {**GROUP_NORMS, **RELATIVES}

__all__ = ["EPSILON", "SPELLINGS", "Norm", "Spelling", "Together"]
