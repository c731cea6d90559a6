"""Which way an affine goes: backward, forward, split, or to where it costs least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.balance import Balance, Toll, TooDear
from normfold.planning.crossing import Table
from normfold.planning.plan import Plan, Route, Walk
from normfold.planning.ranges import check_affine, check_ranges, check_sums, safe_shift
from normfold.planning.sideways import walk_sideways
from normfold.planning.walk import walk_backward, walk_forward
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import is_virtual, virtual
from normfold.refusal import Refused

# What says least about a site: used only when no other refusal is at hand.
_UNSPECIFIC = ("NF114", "NF106", "NF126", "NF118", "NF122")


@dataclass(frozen=True)
class _Candidate:
    """A plan, and what its affines cost before and after it."""

    plan: Plan
    cost: Balance

    @property
    def pays(self) -> bool:
        """Whether it takes a node away at no higher cost, or lowers the cost."""
        if self.is_complete and self.cost.shortens:
            return self.cost.after.at_most(self.cost.before)
        return self.cost.after.below(self.cost.before)

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the affine is left anywhere."""
        return self.plan.route.rest is None and not self.plan.deposits

    @property
    def is_free(self) -> bool:
        return self.cost.after.number == 0

    def beats(self, other: _Candidate) -> bool:
        """Whether it leaves nothing where the other does, or saves more, whatever the symbolic sizes are."""
        if self.is_complete != other.is_complete:
            return self.is_complete
        return (self.cost.after + other.cost.before).below(other.cost.after + self.cost.before)


class _Ways:
    """The ways from one site. Several routes share one: each is walked once."""

    def __init__(self, site: ir.Node, workspace: Workspace, table: Table) -> None:
        self._site = site
        self._workspace = workspace
        self._table = table
        self._walked: dict[tuple[bool, Affine, bool], Walk | Refused] = {}

    def follow(self, route: Route) -> Plan:
        """The plan to take this route.

        Raises:
            Refused: where it is barred.
        """
        walks: list[Walk] = []
        if route.back is not None:
            walks.append(self._walk(forward=False, affine=route.back, deposit=route.deposit))
        if route.ahead is not None:
            walks.append(self._walk(forward=True, affine=route.ahead, deposit=route.deposit))
        if route.aside is not None:
            walks.extend(walk_sideways(self._site.outputs[0], route.aside, self._workspace, self._table))
            _require_apart(walks)
        return Plan(self._site, tuple(walks), route)

    def _walk(self, *, forward: bool, affine: Affine, deposit: bool) -> Walk:
        key = (forward, affine, deposit)
        if key not in self._walked:
            try:
                self._walked[key] = self._walked_anew(forward=forward, affine=affine, deposit=deposit)
            except Refused as refusal:
                self._walked[key] = refusal.again()
        found = self._walked[key]
        if isinstance(found, Refused):
            raise found.again()
        return found

    def _walked_anew(self, *, forward: bool, affine: Affine, deposit: bool) -> Walk:
        site, workspace, table = self._site, self._workspace, self._table
        toll = Toll(site, workspace)
        if forward:
            return walk_forward(site.outputs[0], affine, workspace, table, deposit=deposit, toll=toll)
        x = site.inputs[0]
        assert x is not None
        return walk_backward(x, (site, 0), affine, workspace, table, deposit=deposit, toll=toll)


class Planner:
    """Finds the cheapest exact way to remove the affine of a virtual node. Changes nothing.

    Every plan either removes a node at no higher cost, or lowers the cost: so planning ends.

    ``keep`` and ``spare`` name values whose producers are left as they are, because that was asked for, or
    for the sake of rounding; ``anchored_stay``: and so is the affine of a kernel that runtimes recognise.
    """

    def __init__(
        self,
        workspace: Workspace,
        table: Table,
        keep: frozenset[str] = frozenset(),
        spare: frozenset[str] = frozenset(),
        *,
        anchored_stay: bool = True,
    ) -> None:
        self._workspace = workspace
        self._table = table
        self._keep, self._spare = keep, spare
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
        ways = _Ways(site, self._workspace, self._table)
        for route in self._routes(site, ways, refusals):
            if route.deposit and best is not None and best.is_complete:
                break
            try:
                plan = ways.follow(route)
                self._check(plan)
            except TooDear as refusal:
                dear = refusal.again()
                continue
            except Refused as refusal:
                refusals.append(refusal.again())
                continue
            found = _Candidate(plan, Balance.of(plan, self._workspace))
            if not found.pays:
                dear = TooDear()
            elif found.is_free:
                return plan
            elif best is None or found.beats(best):
                best = found
        if best is not None:
            return best.plan
        raise _most_specific(refusals, dear).again()

    def _routes(self, site: ir.Node, ways: _Ways, refusals: list[Refused]) -> Iterator[Route]:
        """Ways to try, the cheapest first: without anything left over, then with deposits on the way."""
        affine = virtual(site).affine
        both = affine.has_scale and affine.has_shift
        early: Affine | None = None
        if both:
            try:
                early = self._early_shift(site, affine)
            except Refused as refusal:
                if _could_go_apart(ways, affine):
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
                if is_kept(node, self._spare):
                    raise Refused("NF129", f"{node.outputs[0].name!r} stays for the sake of rounding")
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


def _could_go_apart(ways: _Ways, affine: Affine) -> bool:
    """Whether some shift could go backward and the scale forward, were there one to go in front of it."""
    try:
        ways.follow(Route(affine.only_shift(), affine.only_scale(), None, deposit=False))
    except Refused:
        return False
    return True


def _require_apart(walks: list[Walk]) -> None:
    """Refuse where two walks touch one node: each has computed its edit from what the node is now."""
    met = Counter(node for walk in walks for node in (*walk.crossings, *walk.composed))
    twice = next((node for node, times in met.items() if times > 1), None)
    if twice is not None:
        raise Refused("NF119", f"{twice.op_type} {twice.outputs[0].name!r} is asked twice")


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
