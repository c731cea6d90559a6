"""What can be added to a draft. A step takes a value and returns the one to go on with, or is impossible."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.draft import Draft, Value
from tests.fuzz.steps import affines, layout, linear, norms, pointwise, rare, reducing, structure

Step = Callable[[Draft, Value], Value]

AFFINES: tuple[Step, ...] = affines.STEPS
LINEAR: tuple[Step, ...] = linear.STEPS
CROSSED: tuple[Step, ...] = (*layout.STEPS, *pointwise.STEPS, *reducing.STEPS)
STRUCTURE: tuple[Step, ...] = structure.STEPS
SPELLED: tuple[Step, ...] = norms.STEPS
RARE: tuple[Step, ...] = rare.STEPS
