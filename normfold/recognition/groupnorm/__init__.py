"""Normalisations with statistics of their input, whatever they are spelled as.

Nothing is matched against a pattern. From a value x on, every node is read as arithmetic on four quantities
(``terms``) over the pieces that reshapes cut the axes of x into (``frame``). What ends as
``γ·(x − mean)/√(var + ε) + β`` is a normalisation, however many nodes that took, in whatever order.
"""

from __future__ import annotations

from normfold.recognition.groupnorm.norm import LookAlike, Norm
from normfold.recognition.groupnorm.search import find_norms

__all__ = ["LookAlike", "Norm", "find_norms"]
