"""Where to look for normalisations, and which nodes belong to one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx_ir as ir

from normfold.preparation.graphs import graphs_of
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import arithmetic, averages, layout, operators
from normfold.recognition.groupnorm.frame import DividedBySum, NotRead, same_view
from normfold.recognition.groupnorm.matching import Meaning, meaning_of
from normfold.recognition.groupnorm.norm import LookAlike, Norm
from normfold.recognition.groupnorm.reader import Reader, Reading
from normfold.recognition.groupnorm.terms import Expression, Radicand

_READINGS: dict[tuple[str, str], Reading] = {
    **arithmetic.READINGS,
    **averages.READINGS,
    **layout.READINGS,
    **operators.READINGS,
}
_MOST_READ = 160
_MOST_BEHIND = 60
_MOST_BASES = 6
_HALF = 0.5
_ON_SHAPES = frozenset(
    {"Shape", "Size", "Gather", "Concat", "ReduceProd", "Cast", "Slice", "Squeeze", "Unsqueeze"}
    | {"Reshape", "Mul", "Div", "Sub", "Add", "Equal", "Where", "ConstantOfShape", "Expand", "Identity"}
)


def find_norms(workspace: Workspace) -> Iterator[Norm | LookAlike]:
    """Every normalisation of the model and of its subgraphs, in graph order; reads only."""
    for graph in graphs_of(workspace.model):
        taken: set[ir.Node] = set()
        for seed in graph:
            if seed in taken or not _is_seed(seed, workspace):
                continue
            found = _from_seed(seed, workspace, taken)
            if found is None:
                continue
            if isinstance(found, Norm):
                if not taken.isdisjoint(found.nodes):
                    continue
                taken.update(found.nodes)
            yield found


def _is_seed(node: ir.Node, workspace: Workspace) -> bool:
    if all(workspace.constants.is_constant(value) for value in node.outputs):
        return False
    if _key(node) == ("", "Pow"):
        exponent = NodeView(node, workspace).array(1)
        return exponent is not None and exponent.size == 1 and abs(float(exponent.reshape(()))) == _HALF
    return _key(node) in operators.READINGS or _key(node) in _OTHERS or _key(node) == ("", "Sqrt")


# Operators that are easily taken for one of the above.
_OTHERS: dict[tuple[str, str], tuple[str, str]] = {
    ("", "MeanVarianceNormalization"): ("NF401", "its epsilon is added to the deviation"),
    ("com.microsoft", "SkipGroupNorm"): ("NF406", "it adds a second input before it normalises"),
}


def _from_seed(seed: ir.Node, workspace: Workspace, taken: set[ir.Node]) -> Norm | LookAlike | None:
    """The norm that a node is part of; what ``taken`` belongs to others is not looked behind."""
    if _key(seed) in _OTHERS:
        return LookAlike(seed, *_OTHERS[_key(seed)])
    starts = [seed.inputs[0]] if _key(seed) in operators.READINGS else _averaged(seed, taken)
    for start in starts:
        look_alike: LookAlike | None = None
        for base in _bases(start):
            try:
                reader = Reader(base, workspace)
            except NotRead:
                continue
            attempt = _Attempt(reader, seed)
            norm = attempt.run()
            if norm is not None:
                return norm
            look_alike = look_alike or attempt.look_alike
        if look_alike is not None:
            return look_alike
    return None


def _averaged(root: ir.Node, taken: set[ir.Node]) -> list[ir.Value]:
    """What the reductions behind a root reduce, the first one of them first."""
    pending, seen = [root], {root}
    reductions: set[ir.Node] = set()
    while pending and len(seen) < _MOST_BEHIND:
        node = pending.pop()
        if _key(node) in averages.READINGS:
            reductions.add(node)
        for value in node.inputs:
            maker = None if value is None else value.producer()
            if maker is None or maker in seen or maker in taken or maker.graph is not root.graph:
                continue
            if _key(maker) in _READINGS:
                seen.add(maker)
                pending.append(maker)
    ordered = sorted(reductions, key=lambda node: _depth(node, reductions))
    return list(dict.fromkeys(value for node in ordered if (value := node.inputs[0]) is not None))


def _depth(node: ir.Node, reductions: set[ir.Node]) -> int:
    """How many reductions lie behind one, itself included."""
    pending, seen, count = [node], {node}, 0
    while pending and len(seen) < _MOST_BEHIND:
        current = pending.pop()
        count += current in reductions
        for value in current.inputs:
            maker = None if value is None else value.producer()
            if maker is not None and maker not in seen and _key(maker) in _READINGS:
                seen.add(maker)
                pending.append(maker)
    return count


def _bases(start: ir.Value | None) -> list[ir.Value]:
    """Values that the statistics may be of, the furthest first, past squares, casts and reshapes."""
    found: list[ir.Value] = []
    while start is not None and len(found) < _MOST_BASES:
        found.append(start)
        maker = start.producer()
        if maker is None or maker.domain not in ("", "ai.onnx"):
            break
        is_square = maker.op_type == "Pow" or (maker.op_type == "Mul" and maker.inputs[0] is maker.inputs[1])
        if not is_square and _key(maker) not in layout.READINGS and maker.op_type not in ("Cast", "Identity"):
            break
        start = maker.inputs[0]
    return found[::-1]


class _Attempt:
    """Reads on from one base value, and picks what ends as a normalisation."""

    def __init__(self, reader: Reader, seed: ir.Node) -> None:
        self._reader = reader
        self._workspace = reader.workspace
        self._seed = seed
        self._graph = seed.graph
        self._makers: dict[ir.Value, ir.Node] = {}
        self._found: list[tuple[ir.Value, Meaning]] = []
        self._divided: str | None = None
        self._missed: str | None = None
        self.look_alike: LookAlike | None = None

    def run(self) -> Norm | None:
        self._read_on()
        leaked: ir.Value | None = None
        for y, meaning in reversed(self._found):
            region = self._region(y)
            if self._seed not in region:
                continue
            leak = self._leak(y, region)
            if leak is not None:
                leaked = leak
                continue
            if self._workspace.shapes.dtype(y) != self._workspace.shapes.dtype(self._reader.base):
                continue
            return self._norm(y, meaning, region)
        if leaked is not None:
            self.look_alike = LookAlike(
                self._seed, "NF402", f"{leaked.name!r} is also read outside of the normalisation"
            )
        elif self._divided is not None and any(
            self._is_deviation(number) for number in range(len(self._reader.statistics.factors))
        ):
            self.look_alike = LookAlike(self._seed, "NF401", self._divided)
        elif self._missed is not None and _key(self._seed) not in operators.READINGS:
            self.look_alike = LookAlike(self._seed, "NF406", self._missed)
        return None

    def _read_on(self) -> None:
        pending: list[tuple[float, int, ir.Node]] = []
        queued: set[tuple[ir.Node, int]] = set()

        def push(value: ir.Value) -> None:
            for reader, _ in value.uses():
                known = sum(v in self._reader.known for v in reader.inputs)
                if reader.graph is self._graph and (reader, known) not in queued:
                    queued.add((reader, known))
                    heapq.heappush(pending, (self._workspace.position(reader), len(queued), reader))

        push(self._reader.base)
        for _ in range(_MOST_READ):
            if not pending:
                return
            _, _, node = heapq.heappop(pending)
            reading, y = _READINGS.get(_key(node)), node.outputs[0]
            if reading is None or y in self._reader.known or _has_more_outputs(node):
                continue
            if not any(v in self._reader.known for v in node.inputs):
                continue
            try:
                expression = reading(NodeView(node, self._workspace), self._reader)
            except DividedBySum as reason:
                self._divided = str(reason)
                continue
            except NotRead:
                if self._divides_another(node):
                    self._missed = "another value is divided by the deviation"
                continue
            dims = self._workspace.dims(y)
            if dims is not None and len(dims) != len(expression.view):
                continue
            self._makers[y] = node
            self._reader.note(y, expression)
            self._note(y, expression)
            push(y)

    def _divides_another(self, node: ir.Node) -> bool:
        """Whether a deviation divides a value that is not computed from the base value."""
        others = [v for v in node.inputs if v not in self._reader.known]
        if node.op_type not in ("Mul", "Div") or all(map(self._workspace.constants.is_constant, others)):
            return False
        for slot, value in enumerate(node.inputs):
            expression = None if value is None else self._reader.known.get(value)
            sign = -1 if node.op_type == "Div" and slot == 1 else 1
            if expression is not None and any(
                key[:3] == (0, 0, 0)
                and any(sign * power < 0 and self._is_deviation(number) for number, power in key[3])
                for key in expression.terms
            ):
                return True
        return False

    def _is_deviation(self, number: int) -> bool:
        factor = self._reader.statistics.factors[number]
        return isinstance(factor, Radicand) and factor.mean == -factor.square

    def _note(self, y: ir.Value, expression: Expression) -> None:
        try:
            self._found.append((y, meaning_of(expression, self._reader)))
        except NotRead as reason:
            if self._is_normalised(expression) and self._seed in self._region(y):
                self._missed = str(reason)

    def _is_normalised(self, expression: Expression) -> bool:
        """Whether it is x over a root, of the shape of x."""
        return same_view(expression.view, self._reader.view) and any(
            power < 0 and isinstance(self._reader.statistics.factors[number], Radicand)
            for key in expression.terms
            if key[0] == 1
            for number, power in key[3]
        )

    def _region(self, y: ir.Value) -> set[ir.Node]:
        """The nodes between the base value and ``y``."""
        region: set[ir.Node] = set()
        pending = [y]
        while pending:
            node = self._makers.get(pending.pop())
            if node is not None and node not in region:
                region.add(node)
                pending.extend(v for v in node.inputs if v is not None)
        return region

    def _leak(self, y: ir.Value, region: set[ir.Node]) -> ir.Value | None:
        """A value inside the region, other than a rearranged x, that something outside reads."""
        for node in region:
            value = node.outputs[0]
            if value is y or self._is_base(value):
                continue
            if value.is_graph_output():
                return value
            for reader, _ in value.uses():
                if reader not in region and not self._dies(reader, y, region, 0):
                    return value
            dead = (r for r, _ in value.uses() if r not in region and _is_unread(r))
            if self._seed in self._region(value) and next(dead, None) is not None:
                # It stays, and with it the norm that it reads, to be found by the next fold.
                return value
        return None

    def _is_base(self, value: ir.Value) -> bool:
        """Whether it is x under another shape, which may go on being read."""
        expression = self._reader.known[value]
        laid = expression.terms.get((1, 0, 0, ()))
        return (
            expression.form == "sum"
            and len(expression.terms) == 1
            and laid is not None
            and laid.scalar == 1.0
        )

    def _dies(self, node: ir.Node, y: ir.Value, region: set[ir.Node], depth: int) -> bool:
        """Whether a node outside only computes shapes for nodes inside."""
        if depth > _MOST_BEHIND or node.op_type not in _ON_SHAPES or node.graph is not self._graph:
            return False
        return not any(v.is_graph_output() for v in node.outputs) and all(
            reader in region or self._dies(reader, y, region, depth + 1)
            for v in node.outputs
            for reader, _ in v.uses()
        )

    def _norm(self, y: ir.Value, meaning: Meaning, region: set[ir.Node]) -> Norm:
        expression = self._reader.known[y]
        inner: Norm | None = None
        gated = self._makers[y]
        if expression.form == "silu" and gated.op_type == "Mul":
            source = next(v for v in gated.inputs if v is not None and self._reader.known[v].form == "sum")
            inner = self._norm(source, meaning, self._region(source))
        return Norm(
            self._reader.base,
            y,
            meaning.kind,
            meaning.axes,
            meaning.channel_axis,
            meaning.channels,
            meaning.groups,
            meaning.epsilon,
            meaning.scale,
            meaning.shift,
            "silu" if expression.form == "silu" else None,
            meaning.unbiased,
            tuple(sorted(region, key=self._workspace.position)),
            inner,
        )


def _is_unread(node: ir.Node) -> bool:
    """Whether nothing reads it, or only what nothing reads."""
    pending, met = [node], 0
    while pending:
        node, met = pending.pop(), met + 1
        if met > _MOST_BEHIND or any(v.is_graph_output() for v in node.outputs):
            return False
        pending.extend(reader for v in node.outputs for reader, _ in v.uses())
    return True


def _has_more_outputs(node: ir.Node) -> bool:
    return any(v.uses() or v.is_graph_output() for v in node.outputs[1:])


def _key(node: ir.Node) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
