"""Which way an affine goes: backward, forward, split, or to where it costs least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.cost import NODE, Elements, charge_edit, is_bias, passes
from normfold.planning.crossing import Table
from normfold.planning.plan import Plan, Route, Walk
from normfold.planning.ranges import check_affine, check_ranges, check_sums, safe_shift
from normfold.planning.sideways import walk_sideways
from normfold.planning.walk import walk_backward, walk_forward
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import VirtualAffine, is_virtual, virtual
from normfold.refusal import Refused

# What says least about a site: used only when no other refusal is at hand.
_UNSPECIFIC = ("NF114", "NF106", "NF126", "NF118", "NF122")


@dataclass(frozen=True)
class _Candidate:
    """A plan, what its affines cost after it, and what they cost before."""

    plan: Plan
    after: Elements
    before: Elements

    @property
    def pays(self) -> bool:
        """Whether it takes a node away at no higher cost, or lowers the cost."""
        if self.is_complete and _shortens(self.plan):
            return self.after.at_most(self.before)
        return self.after.below(self.before)

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the affine is left anywhere."""
        return self.plan.route.rest is None and not self.plan.deposits

    @property
    def is_free(self) -> bool:
        return self.after.number == 0

    def beats(self, other: _Candidate) -> bool:
        """Whether it leaves nothing where the other does, or saves more, whatever the symbolic sizes are."""
        if self.is_complete != other.is_complete:
            return self.is_complete
        return (self.after + other.before).below(other.after + self.before)


class Planner:
    """Finds the cheapest exact way to remove the affine of a virtual node. Changes nothing.

    Every plan either removes a node at no higher cost, or lowers the cost: so planning ends.

    ``keep`` names values whose producers are left as they are; ``anchored_stay``: and so is the affine of a
    kernel that runtimes recognise.
    """

    def __init__(
        self,
        workspace: Workspace,
        table: Table,
        keep: frozenset[str] = frozenset(),
        *,
        anchored_stay: bool = True,
    ) -> None:
        self._workspace = workspace
        self._table = table
        self._keep = keep
        self._anchored_stay = anchored_stay

    def plan(self, site: ir.Node) -> Plan:
        """The plan for one virtual node.

        Raises:
            Refused: with the reason that says most, if every route is barred.
        """
        if self._anchored_stay and virtual(site).anchored:
            raise Refused(
                "NF128", "it is the scale and shift of a LayerNormalization that runtimes run as one kernel"
            )
        refusals: list[Refused] = []
        dear: Refused | None = None
        best: _Candidate | None = None
        before = self._cost_before(site)
        for route in self._routes(site, refusals):
            if route.deposit and best is not None and best.is_complete:
                break
            try:
                plan = self._follow(site, route)
                self._check(plan)
            except Refused as refusal:
                refusals.append(refusal.again())
                continue
            found = _Candidate(plan, self._cost_after(plan), self._plus_composed(before, plan))
            if not found.pays:
                dear = Refused("NF122", "where it could go it would touch as many elements, or more")
            elif found.is_free:
                return plan
            elif best is None or found.beats(best):
                best = found
        if best is not None:
            return best.plan
        raise _most_specific(refusals, dear).again()

    def _routes(self, site: ir.Node, refusals: list[Refused]) -> Iterator[Route]:
        """Ways to try, the cheapest first: without anything left over, then with deposits on the way."""
        affine = virtual(site).affine
        both = affine.has_scale and affine.has_shift
        early: Affine | None = None
        if both:
            try:
                early = self._early_shift(site, affine)
            except Refused as refusal:
                if self._could_go_apart(site, affine):
                    refusals.append(refusal.again())
        scale, shift = affine.only_scale(), affine.only_shift()
        for deposit in (False, True):
            yield Route(affine, None, None, deposit)
            yield Route(None, affine, None, deposit)
            if both:
                yield Route(scale, shift, None, deposit)
                yield Route(scale, None, shift, deposit)
                yield Route(None, shift, scale, deposit)
            if affine.has_shift and not deposit:
                yield Route(scale if affine.has_scale else None, None, None, deposit, aside=shift)
            if early is not None:
                yield Route(early, scale, None, deposit)
                yield Route(None, scale, early, deposit)
                yield Route(early, None, scale, deposit)

    def _could_go_apart(self, site: ir.Node, affine: Affine) -> bool:
        """Whether some shift could go backward and the scale forward, were there one to go in front of it."""
        try:
            self._follow(site, Route(affine.only_shift(), affine.only_scale(), None, deposit=False))
        except Refused:
            return False
        return True

    def _follow(self, site: ir.Node, route: Route) -> Plan:
        walks: list[Walk] = []
        if route.back is not None:
            x = site.inputs[0]
            assert x is not None
            walks.append(
                walk_backward(x, (site, 0), route.back, self._workspace, self._table, deposit=route.deposit)
            )
        if route.ahead is not None:
            walks.append(
                walk_forward(
                    site.outputs[0], route.ahead, self._workspace, self._table, deposit=route.deposit
                )
            )
        if route.aside is not None:
            walks.extend(walk_sideways(site.outputs[0], route.aside, self._workspace, self._table))
            _require_apart(walks)
        return Plan(site, tuple(walks), route)

    def _early_shift(self, site: ir.Node, affine: Affine) -> Affine:
        """The shift as it is in front of the scale: ``t / s``."""
        early = affine.shift_first()
        if early is None:
            raise Refused(
                "NF127", "its scale is zero somewhere, so its shift cannot be applied in front of it"
            )
        dtype = self._workspace.shapes.dtype(site.outputs[0])
        if dtype is not None and not safe_shift(early.shift, dtype):
            raise Refused(
                "NF111", f"its shift divided by its scale would leave the range of {dtype.name.lower()}"
            )
        return early

    def _check(self, plan: Plan) -> None:
        for walk in plan.walks:
            for node in (*walk.crossings, *walk.composed):
                if is_kept(node, self._keep):
                    raise Refused("NF120", f"{node.outputs[0].name!r} was asked to stay")
            check_sums(walk, self._workspace)
            for node, crossing in walk.crossings.items():
                check_ranges(NodeView(node, self._workspace), crossing)
            for node, affine in walk.composed.items():
                self._check_affine(affine, node.outputs[0])
        for deposit in plan.deposits:
            self._check_affine(deposit.affine, deposit.value)
        if plan.route.rest is not None:
            self._check_affine(plan.route.rest, plan.site.outputs[0])

    def _check_affine(self, affine: Affine, value: ir.Value) -> None:
        check_affine(affine, self._workspace.shapes.dtype(value), value.name or "?")

    def _cost_before(self, site: ir.Node) -> Elements:
        cost = Elements()
        self._charge_node(cost, site, virtual(site).affine)
        return cost

    def _plus_composed(self, before: Elements, plan: Plan) -> Elements:
        cost = before.copy()
        for walk in plan.walks:
            for node in walk.composed:
                self._charge_node(cost, node, virtual(node).affine)
        return cost

    def _cost_after(self, plan: Plan) -> Elements:
        cost = Elements()
        if plan.route.rest is not None:
            self._charge_node(cost, plan.site, plan.route.rest)
        for deposit in plan.deposits:
            self._charge(cost, deposit.value, deposit.affine)
        for walk in plan.walks:
            for node, affine in walk.composed.items():
                self._charge_node(cost, node, affine)
            for node, crossing in walk.crossings.items():
                charge_edit(cost, node, crossing, self._workspace)
        return cost

    def _charge_node(self, cost: Elements, node: ir.Node, affine: Affine) -> None:
        """What a virtual node costs with this affine."""
        x = node.inputs[0]
        assert x is not None
        self._charge(cost, x, affine, from_batchnorm=virtual(node).batchnorm is not None)

    def _charge(
        self, cost: Elements, value: ir.Value, affine: Affine, *, from_batchnorm: bool = False
    ) -> None:
        """What an affine on ``value`` costs: nothing if a runtime fuses it into the MatMul in front.

        A constant that is more than a vector is read like a value.
        """
        if not is_bias(affine, value, self._workspace):
            times = passes(affine, from_batchnorm=from_batchnorm)
            cost.add(self._workspace.dims(value), times, unknown=value.name or "?")
            cost.add((NODE,), times)
            cost.add((affine.map_elements,))


def _require_apart(walks: list[Walk]) -> None:
    """Refuse where two walks touch one node: each has computed its edit from what the node is now."""
    met = Counter(node for walk in walks for node in (*walk.crossings, *walk.composed))
    twice = next((node for node, times in met.items() if times > 1), None)
    if twice is not None:
        raise Refused("NF119", f"{twice.op_type} {twice.outputs[0].name!r} is asked twice")


def _shortens(plan: Plan) -> bool:
    """Whether a plan without leftovers takes fewer nodes: two scalars that meet may be two nodes still."""
    composed = [(virtual(node), affine) for walk in plan.walks for node, affine in walk.composed.items()]
    before = sum(
        _nodes(content, content.affine) for content in (virtual(plan.site), *(c for c, _ in composed))
    )
    return sum(_nodes(content, affine) for content, affine in composed) < before


def _nodes(content: VirtualAffine, affine: Affine) -> int:
    return passes(affine, from_batchnorm=content.batchnorm is not None)


def is_kept(node: ir.Node, keep: frozenset[str]) -> bool:
    """Whether the node, or one that it stands for, produces a value named in ``keep``."""
    names = {value.name for value in node.outputs}
    if is_virtual(node):
        content = virtual(node)
        names |= {record.name for record in content.records}
        names |= {value.name for member in content.spelling for value in member.outputs}
    return not keep.isdisjoint(names)


def _most_specific(refusals: list[Refused], dear: Refused | None) -> Refused:
    """What bars a way says more than that a way does not pay, and that more than that there is none."""
    return next((r for r in refusals if r.code not in _UNSPECIFIC), dear or refusals[0])
