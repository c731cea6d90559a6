"""A plan: what to change so that one affine disappears. Nothing is changed until ``normfold.rewriting``
applies it."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.crossing import Crossing

Use = tuple[ir.Node, int]


@dataclass(frozen=True)
class Deposit:
    """An affine put on ``value``: the readers in ``uses`` (and the graph output, if any) see
    ``affine(value)``."""

    value: ir.Value
    uses: tuple[Use, ...]
    affine: Affine


@dataclass
class Walk:
    """What one walk over the graph found.

    Attributes:
        forward: whether it went to the readers.
        crossings: nodes that let the affine through or absorbed it, in the order they were met.
        composed: virtual nodes that took it, with their new affine.
        deposits: where a part of it has to stay.
        renamed: values whose meaning changes.
    """

    forward: bool
    crossings: dict[ir.Node, Crossing] = field(default_factory=dict)
    composed: dict[ir.Node, Affine] = field(default_factory=dict)
    deposits: list[Deposit] = field(default_factory=list)
    renamed: list[ir.Value] = field(default_factory=list)


@dataclass(frozen=True)
class Route:
    """``back`` goes to the producer, ``ahead`` to the readers, ``aside`` to the other operands of sums that
    read it, ``rest`` stays."""

    back: Affine | None
    ahead: Affine | None
    rest: Affine | None
    deposit: bool
    aside: Affine | None = None


@dataclass(frozen=True)
class Plan:
    """Removes the affine of ``site`` (a virtual node), or all of it but ``route.rest``."""

    site: ir.Node
    walks: tuple[Walk, ...]
    route: Route

    @property
    def deposits(self) -> list[Deposit]:
        return [deposit for walk in self.walks for deposit in walk.deposits]
