"""What is broken, rule by rule."""

from __future__ import annotations

from tests.mutation.catalogue import elementwise, foundations, layout, linear, machinery, norms, travel
from tests.mutation.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *linear.MUTANTS,
    *layout.MUTANTS,
    *elementwise.MUTANTS,
    *machinery.MUTANTS,
    *travel.MUTANTS,
    *norms.MUTANTS,
    *foundations.MUTANTS,
)
