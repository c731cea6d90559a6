"""Finds the first value where two models part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from normfold.inputs.drawing import Arrays, is_floating
from normfold.verification.graph_index import GraphIndex
from normfold.verification.location.matching import Twins, match_values
from normfold.verification.rounding import ulp

PROBES = 12
"""Values that are looked at in one run."""

NOISE_ALLOWANCE = 16.0
"""How many times further than the original under noise an agreeing value may be off."""

ULPS = 4.0
NEIGHBOURS = 4
"""Nodes in front of and behind the first difference that are shown."""


class Probe(Protocol):
    """Runs both models on one input and shows what they hold inside."""

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> tuple[Arrays, Arrays, list[Arrays]]:
        """Values of the first model, of the second, and of the first under noise of the size of rounding."""


@dataclass(frozen=True)
class Gap:
    """How far two corresponding values are apart.

    Attributes:
        error: largest difference; infinite where shapes, types or non-finite elements differ.
        noise: how far noise moves the first value.
        floor: a few units in the last place of its largest element.
    """

    error: float
    noise: float
    floor: float

    def beyond(self, allowance: float) -> bool:
        """Whether the difference is more than noise explains."""
        return self.error > self.bound(allowance)

    def bound(self, allowance: float) -> float:
        """The largest difference that noise explains."""
        return allowance * self.noise + self.floor


@dataclass(frozen=True)
class Location:
    """The first value where two models part.

    Attributes:
        first: the value in the first model.
        second: its counterpart.
        gap: how far they are apart.
        bound: how far they could be apart if they agreed.
        boundary: pairs right in front of it, which agree.
        nodes: nodes between the boundary and the value, in execution order, of each model.
        indices: both models.
    """

    first: ir.Value
    second: ir.Value
    gap: Gap
    bound: float
    boundary: tuple[tuple[ir.Value, ir.Value], ...]
    nodes: tuple[tuple[ir.Node, ...], tuple[ir.Node, ...]]
    indices: tuple[GraphIndex, GraphIndex] = field(repr=False)


def locate(a: ir.Model, b: ir.Model, output: str, open_probe: Callable[[Twins], Probe]) -> Location | None:
    """Bisects to the first value where two models part, seen from an output that differs.

    Values that do not feed the output are not looked at. What is found differs although everything that it
    is computed from agrees, as far as the two models have values in common.

    Args:
        a: the first model.
        b: the second model.
        output: name of an output that differs.
        open_probe: makes both models' values visible; is given all pairs that may be asked for.

    Returns:
        The place, ``None`` where the output agrees once values inside are read out.
    """
    indices = GraphIndex(a), GraphIndex(b)
    pairs = match_values(*indices)
    search = _Search(indices, pairs, open_probe(pairs))
    goal = indices[0].values[("", output)]
    return search.run(goal) if goal in pairs else None


class _Search:
    def __init__(self, indices: tuple[GraphIndex, GraphIndex], pairs: Twins, probe: Probe) -> None:
        self._indices, self._pairs, self._probe = indices, pairs, probe
        self._twins = {right: left for left, right in pairs.items()}
        self._gaps: dict[ir.Value, Gap] = {}
        self._allowance = NOISE_ALLOWANCE

    def run(self, goal: ir.Value) -> Location | None:
        self._measure([goal])
        gap = self._gaps[goal]
        if not gap.error:
            return None
        if not gap.beyond(2 * NOISE_ALLOWANCE) and gap.noise:
            # A difference this small is looked for with a smaller measure.
            self._allowance = max((gap.error - gap.floor) / gap.noise / 2, 0.0)
        if not self._differs(goal):
            return None
        seen: set[ir.Value] = set()
        while True:
            found = self._bisect(goal)
            if found is not goal and not self._has_consequence(found, goal):
                # Not what corresponds: a bias that the normalisation behind it takes out, for instance.
                self._twins.pop(self._pairs.pop(found))
                continue
            boundary = self._boundary(found)
            self._measure([left for left in boundary if left.producer() is not None])
            wrong = [left for left in boundary if left.producer() is not None and self._differs(left)]
            seen.add(found)
            # Names that cross each other could lead in a circle.
            goal = next((left for left in wrong if left not in seen), found)
            if goal is found:
                return self._location(found, boundary)

    def _has_consequence(self, found: ir.Value, goal: ir.Value) -> bool:
        """Whether any of the nearest pairs behind a value, on the way to the goal, differs too."""
        way = {*_above(self._indices[0], goal), goal}
        behind: dict[ir.Value, None] = {}
        pending, seen = [found], {found}
        while pending:
            for node in self._indices[0].readers(pending.pop()):
                for value in node.outputs:
                    if value in seen or value not in way:
                        continue
                    seen.add(value)
                    if value in self._pairs:
                        behind[value] = None
                    else:
                        pending.append(value)
        self._measure(behind)
        return not behind or any(self._differs(value) for value in behind)

    def _differs(self, value: ir.Value) -> bool:
        return self._gaps[value].beyond(self._allowance)

    def _measure(self, values: Iterable[ir.Value]) -> None:
        wanted = [value for value in values if value not in self._gaps]
        if not wanted:
            return
        names = [[value.name or "" for value in side] for side in (wanted, [self._pairs[v] for v in wanted])]
        first, second, moved = self._probe(*names)
        for value, left, right in zip(wanted, *names, strict=True):
            self._gaps[value] = measure(first[left], second[right], [run[left] for run in moved])

    def _bisect(self, goal: ir.Value) -> ir.Value:
        """The first value on the way to the goal that differs, if all behind it differ too."""
        candidates = [value for value in self._ancestors(goal) if value.producer() is not None]
        low, high = -1, len(candidates) - 1
        while high - low > 1:
            step = max((high - low) // PROBES, 1)
            looked_at = range(low + step, high, step)
            self._measure(candidates[place] for place in looked_at)
            for place in looked_at:
                if self._differs(candidates[place]):
                    high = place
                    break
                low = place
        return candidates[high]

    def _ancestors(self, goal: ir.Value) -> list[ir.Value]:
        """Pairs that feed the goal in both models, in the order of the first; the goal is the last."""
        index = self._indices[0]
        above = _above(index, goal), _above(self._indices[1], self._pairs[goal])
        found = [left for left in above[0] if left in self._pairs and self._pairs[left] in above[1]]
        return [*sorted(found, key=lambda value: _place(index, value)), goal]

    def _boundary(self, found: ir.Value) -> list[ir.Value]:
        """The nearest pairs in front of a value, in either model, by their names in the first."""
        fronts: dict[ir.Value, None] = {}
        for index, value, paired in (
            (self._indices[0], found, set(self._pairs)),
            (self._indices[1], self._pairs[found], set(self._twins)),
        ):
            _, ends = _between(index, value, paired)
            fronts.update((end if index is self._indices[0] else self._twins[end], None) for end in ends)
        return sorted(fronts, key=lambda value: _place(self._indices[0], value))

    def _location(self, found: ir.Value, boundary: Sequence[ir.Value]) -> Location:
        ends = set(boundary), {self._pairs[left] for left in boundary}
        values = found, self._pairs[found]
        first, second = (
            _between(index, value, stop)[0]
            for index, value, stop in zip(self._indices, values, ends, strict=True)
        )
        gap = self._gaps[found]
        pairs = tuple((left, self._pairs[left]) for left in boundary)
        bound = gap.bound(self._allowance)
        return Location(*values, gap, bound, pairs, (tuple(first), tuple(second)), self._indices)


def measure(first: np.ndarray, second: np.ndarray, moved: Sequence[np.ndarray]) -> Gap:
    """How far two values are apart, beside how far noise moves the first."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return Gap(np.inf, 0.0, 0.0)
    if not is_floating(first.dtype):
        return Gap(float(np.count_nonzero(first != second)), 0.0, 0.0)
    left, right = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)) or not np.array_equal(
        left[~finite], right[~finite], equal_nan=True
    ):
        return Gap(np.inf, 0.0, 0.0)
    left = left[finite]
    peak = float(np.abs(left).max(initial=0.0))
    noise = 0.0
    for run in moved:
        other = run.astype(np.float64)
        if other.shape == finite.shape:
            change = np.abs(other[finite] - left)
            noise = max(noise, float(change.max(initial=0.0, where=np.isfinite(change))))
    return Gap(float(np.abs(right[finite] - left).max(initial=0.0)), noise, ULPS * ulp(peak, first.dtype))


def _place(index: GraphIndex, value: ir.Value) -> tuple[int, int]:
    producer = value.producer()
    return (-1, 0) if producer is None else (index.position[producer], value.index() or 0)


def _above(index: GraphIndex, value: ir.Value) -> set[ir.Value]:
    """All values that a value is computed from."""
    found: set[ir.Value] = set()
    pending = [value]
    while pending:
        node = pending.pop().producer()
        for read in index.reads(node) if node is not None else ():
            if read not in found and read not in index.constants:
                found.add(read)
                pending.append(read)
    return found


def _between(
    index: GraphIndex, value: ir.Value, ends: Collection[ir.Value]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes that compute a value from ``ends``, those that make their constants included, and the ends
    that they read."""
    nodes: set[ir.Node] = set()
    reached: dict[ir.Value, None] = {}
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for read in index.reads(node):
            if read in ends:
                reached[read] = None
            elif read not in index.constants:
                pending.append(read)
    return index.with_constant_producers(nodes), list(reached)


def described(location: Location) -> dict[str, Any]:
    """The location for the report: the value, the nodes that compute it, and their neighbours."""
    first, second = location.first, location.second
    ends = {left for left, _ in location.boundary}, {right for _, right in location.boundary}
    return {
        "value": first.name,
        "counterpart": second.name,
        "error": location.gap.error if np.isfinite(location.gap.error) else None,
        "bound": location.bound,
        "agreeing": [left.name for left, _ in location.boundary],
        "original": neighbourhood(location.nodes[0], first, ends[0]),
        "folded": neighbourhood(location.nodes[1], second, ends[1]),
        "from": "run",
        "saved": None,
    }


def neighbourhood(
    nodes: Sequence[ir.Node], value: ir.Value, ends: Collection[ir.Value]
) -> list[dict[str, Any]]:
    """Nodes that compute a value, with some that make what they read and some that read it."""
    before = dict.fromkeys(node for end in ends if (node := end.producer()) is not None)
    behind = dict.fromkeys(user for user, _ in value.uses())
    return [
        *(_entry(node, "before") for node in list(before)[:NEIGHBOURS]),
        *(_entry(node, "here") for node in nodes),
        *(_entry(node, "behind") for node in list(behind)[:NEIGHBOURS]),
    ]


def _entry(node: ir.Node, place: str) -> dict[str, Any]:
    return {
        "place": place,
        "operator": f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        "name": node.name or "",
        "inputs": [value.name if value is not None else "" for value in node.inputs],
        "outputs": [value.name for value in node.outputs],
    }


def sentence(found: dict[str, Any]) -> str:
    """One sentence on a location as :func:`described` gives it."""
    value, twin = found["value"], found["counterpart"]
    name = f"'{value}'" if twin in (None, value) else f"'{value}' ('{twin}' in the other model)"
    first, second = (_operators(found[side]) for side in ("original", "folded"))
    how = f"made by {first}" if first == second else f"made by {first}, in the other model by {second}"
    error, bound = found["error"], found["bound"]
    numbers = f", {error:.3g} apart where {bound:.3g} is explained by rounding" if error is not None else ""
    agreeing = ", ".join(f"'{name}'" for name in found["agreeing"][:NEIGHBOURS])
    still = (
        f"; {agreeing} in front of it still agree{'s' if len(found['agreeing']) == 1 else ''}"
        if agreeing
        else ""
    )
    return f"the models part at {name}, {how}{numbers}{still}"


def _operators(nodes: Sequence[dict[str, Any]]) -> str:
    here = [node["operator"] for node in nodes if node["place"] == "here" and node["operator"] != "Constant"]
    shown = " → ".join(here[-NEIGHBOURS:])
    return f"… → {shown}" if len(here) > NEIGHBOURS else shown or "nothing"
