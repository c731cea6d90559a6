"""What an affine costs in its new places, beside what it costs where it is: on the way, and in the end."""

from __future__ import annotations

from itertools import islice

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.cost import NODE, Elements, charge_edit, is_bias, is_per_channel, passes
from normfold.planning.plan import Plan, Walk
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import virtual
from normfold.refusal import Refused


class TooDear(Refused):
    """Where the affine could go, more would be touched than where it is."""

    def __init__(self) -> None:
        super().__init__("NF122", "where it could go it would touch as many elements, or more")

    def again(self) -> TooDear:
        return TooDear()


class Balance:
    """Costs before and after a plan.

    Attributes:
        before: of the affine where it is, and of those that it has met.
        after: of what has been left on the way, and of what has been edited or met it.
        shortens: whether virtual nodes, where nothing is left on the way, take fewer nodes than before: two
            scalars that meet may be two nodes still.
    """

    def __init__(self, site: ir.Node, workspace: Workspace) -> None:
        self.before, self.after = Elements(), Elements()
        self._workspace = workspace
        self._site = virtual(site)
        self._saved = self._charge_node(self.before, site, self._site.affine)

    @property
    def shortens(self) -> bool:
        return self._saved > 0

    @classmethod
    def of(cls, plan: Plan, workspace: Workspace) -> Balance:
        balance = cls(plan.site, workspace)
        if plan.route.rest is not None:
            balance._charge_node(balance.after, plan.site, plan.route.rest)
        for walk in plan.walks:
            balance.add(walk)
        return balance

    def add(self, walk: Walk, deposits: int = 0, composed: int = 0, crossings: int = 0) -> bool:
        """Takes in what a walk found but for the first so many of each. Returns whether it costs anything."""
        charged = len(walk.deposits) > deposits or len(walk.composed) > composed
        for deposit in walk.deposits[deposits:]:
            per_channel = is_per_channel(deposit.value, self._workspace, self._site)
            times = passes(deposit.affine, per_channel=per_channel)
            self._charge(self.after, deposit.value, deposit.affine, times)
        for node, affine in islice(walk.composed.items(), composed, None):
            self._saved += self._charge_node(self.before, node, virtual(node).affine)
            self._saved -= self._charge_node(self.after, node, affine)
        for node, crossing in islice(walk.crossings.items(), crossings, None):
            charged |= charge_edit(self.after, node, crossing, self._workspace)
        return charged

    def _charge_node(self, cost: Elements, node: ir.Node, affine: Affine) -> int:
        """Returns the number of nodes that say it."""
        x, content = node.inputs[0], virtual(node)
        assert x is not None
        made_of = (content,) if cost is self.before else (content, self._site)
        per_channel = is_per_channel(x, self._workspace, *made_of)
        times = passes(affine, from_batchnorm=content.batchnorm is not None, per_channel=per_channel)
        self._charge(cost, x, affine, times)
        return times

    def _charge(self, cost: Elements, value: ir.Value, affine: Affine, times: int) -> None:
        """Nothing if a runtime fuses it into the MatMul in front. A constant that is more than a vector is
        read like a value."""
        if not is_bias(affine, value, self._workspace):
            cost.add(self._workspace.dims(value), times, unknown=value.name or "?")
            cost.add((NODE,), times)
            cost.add((affine.map_elements,))


class Toll:
    """Ends a walk once it costs twice what the affine does: one that it meets yet may save that much, by
    undoing it."""

    def __init__(self, site: ir.Node, workspace: Workspace) -> None:
        self._balance = Balance(site, workspace)
        self._own = self._balance.before.copy()
        self._paid = (0, 0, 0)

    def pay(self, walk: Walk) -> None:
        """For what the walk has found since the last time.

        Raises:
            TooDear: it has cost too much.
        """
        balance = self._balance
        charged = balance.add(walk, *self._paid)
        self._paid = len(walk.deposits), len(walk.composed), len(walk.crossings)
        if charged and not balance.after.at_most(balance.before + self._own):
            raise TooDear
