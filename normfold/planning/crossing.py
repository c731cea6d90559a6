"""What the operator table is asked, and how it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from normfold.affine import Affine, Array64
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


@dataclass(frozen=True)
class Crossing:
    """How one node lets an affine through.

    Attributes:
        affines: backward: what each input slot is asked for; forward: what each output then brings.
            Slots and outputs that are absent are left as they are.
        constants: input slots that get a new constant; a slot behind the last is appended.
        attributes: attributes that change.
        op_type: the operator that the node becomes, ``None`` if it stays.
        leaves: backward only: the part of what outputs were asked for that stays behind the node.
    """

    affines: Mapping[int, Affine] = field(default_factory=dict)
    constants: Mapping[int, Constant64] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    op_type: str | None = None
    leaves: Mapping[int, Affine] = field(default_factory=dict)

    @property
    def edits_node(self) -> bool:
        return bool(self.constants or self.attributes or self.op_type)


class Operator:
    """One entry of the table. A direction that an entry does not define is refused."""

    op_types: ClassVar[tuple[str, ...]]

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        """The outputs ``wanted`` (by index) are to carry these affines: what must the inputs carry?

        Raises:
            Refused: where the crossing is not exact.
        """
        raise Refused("NF114", f"{node.op_type} {node.name!r} cannot produce a scaled or shifted result")

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        """The operands in slots ``given`` arrive without these affines: what do the outputs lack?

        Raises:
            Refused: where the crossing is not exact.
        """
        raise Refused("NF114", f"{node.op_type} {node.name!r} cannot take over a scale or shift of its input")

    def narrowed(self, node: NodeView, asked: Affine) -> Affine:
        """What the node asks of its operand, with the identity at elements that it does not read.

        An entry whose ``backward`` fills those with whatever is simplest says here which they are.
        """
        return asked


Table = Mapping[str, Operator]


class SwitchedOff(Operator):
    """Stands in the table for an operator whose rule was named with ``--skip``."""

    op_types = ()

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        raise self._refusal(node)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        raise self._refusal(node)

    def _refusal(self, node: NodeView) -> Refused:
        return Refused("NF125", f"the rule for {node.op_type} {node.name!r} is switched off")


def require_axes(array: Array64, allowed: set[int], what: str, node: NodeView) -> None:
    """Refuse where ``array`` varies on an axis outside ``allowed``.

    Raises:
        Refused: NF110.
    """
    outside = [axis for axis, size in enumerate(array.shape) if size != 1 and axis not in allowed]
    if outside:
        raise Refused(
            "NF110",
            f"the {what} varies on axis {outside[0]}, which the weight of {node.op_type} {node.name!r} "
            f"does not have",
        )
