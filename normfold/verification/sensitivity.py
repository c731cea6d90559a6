"""Small errors planted into the original, to see whether a comparison would notice them.

A proof that accepts a hundredfold epsilon at a site has not looked at that site: a zero gamma or a dead
branch hides it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir

from normfold.evaluation.promotion import native_slots
from normfold.reporting.report import Site
from normfold.verification.comparison import Reference, Rejected, Runner, Side

EPSILON_FACTOR = 100.0
RELATIVE_CHANGE = 1e-6
LARGEST_EPSILON = 0.1
"""A larger constant added to a variance is not taken for an epsilon."""

EPSILON_OPERATORS = frozenset(
    {
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "GroupNorm",
    }
)
DEFAULT_EPSILON = 1e-5
ROOTS = frozenset({"Sqrt", "Pow", "Rsqrt"})
LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

Use = tuple[ir.Node, int]
"""One use of a constant: the node and the input slot."""

Alteration = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass
class Change:
    """What to plant at one site.

    Attributes:
        epsilons: nodes whose ``epsilon`` attribute grows a hundredfold.
        added: uses of constants that are an epsilon in a hand-written normalisation, which grow likewise.
        constants: uses of other constants, whose elements change by up to one part in a million.
        every: uses of all constants of the site.
    """

    epsilons: list[ir.Node] = field(default_factory=list)
    added: list[Use] = field(default_factory=list)
    constants: list[Use] = field(default_factory=list)
    every: list[Use] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.epsilons or self.added or self.constants)


def change_at(model: ir.Model, site: Site) -> Change:
    """Finds what to perturb for a site in a model of its region.

    Args:
        model: the original's side of the region, ``Constant`` nodes already initializers.
        site: the site; its ``nodes`` tell how far back it reaches.

    Returns:
        Epsilons where the site has any, otherwise its constants; empty where it has neither.
    """
    nodes, uses = _extent(model, site)
    change = Change(every=uses)
    change.epsilons = [node for node in nodes if node.op_type in EPSILON_OPERATORS]
    change.added = [use for use in uses if _is_epsilon(use)]
    if not change.epsilons and not change.added:
        change.constants = uses
    return change


def _extent(model: ir.Model, site: Site) -> tuple[list[ir.Node], list[Use]]:
    """Nodes that the site was made of, and the uses of float constants by them and their constant
    expressions."""
    constants = _constant_values(model.graph)
    start = next((node for node in model.graph for v in node.outputs if v.name == site.site), None)
    if start is None:
        return [], []
    budget = Counter(site.nodes)
    budget[start.op_type] = max(budget[start.op_type], 1)
    accepted: dict[ir.Node, None] = {}
    uses: dict[Use, None] = {}
    pending = deque([start])
    while pending:
        node = pending.popleft()
        expression = all(value in constants for value in node.outputs)
        if node in accepted or (budget[node.op_type] <= 0 and not expression):
            continue
        budget[node.op_type] -= 1
        accepted[node] = None
        kept = native_slots(node.domain, node.op_type)
        for slot, value in enumerate(node.inputs):
            if value is None:
                continue
            producer = value.producer()
            if producer is not None:
                pending.append(producer)
            elif value in constants and slot not in kept and _is_float(value):
                uses[(node, slot)] = None
    return list(accepted), list(uses)


def _constant_values(graph: ir.Graph) -> set[ir.Value]:
    constants = set(graph.initializers.values())
    for node in graph:
        present = [value for value in node.inputs if value is not None]
        if present and all(value in constants for value in present):
            constants.update(node.outputs)
    return constants


def _is_float(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.dtype.is_floating_point()


def _is_epsilon(use: Use) -> bool:
    """Whether the use is the small scalar in ``sqrt(variance + epsilon)``."""
    node, slot = use
    value = node.inputs[slot]
    tensor = value.const_value if value is not None else None
    if node.op_type != "Add" or tensor is None or tensor.size != 1:
        return False
    if not 0 < float(tensor.numpy().reshape(())) <= LARGEST_EPSILON:
        return False
    return any(reader.op_type in ROOTS for reader, _ in node.outputs[0].uses())


@contextmanager
def planted(side: Side, change: Change, rng: np.random.Generator) -> Iterator[Runner]:
    """The side with the change planted, ready to run; the model is as before afterwards."""
    epsilons = {node: node.attributes.get("epsilon") for node in change.epsilons}
    try:
        for node, attribute in epsilons.items():
            value = attribute.as_float() if attribute is not None else DEFAULT_EPSILON
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", value * EPSILON_FACTOR or 1e-3)
        with _altered(side, ((change.added, _hundredfold), (change.constants, _nearby)), rng) as runner:
            yield runner
    finally:
        for node, attribute in epsilons.items():
            del node.attributes["epsilon"]
            if attribute is not None:
                node.attributes["epsilon"] = attribute


@contextmanager
def replaced(side: Side, change: Change, rng: np.random.Generator) -> Iterator[Runner]:
    """The side with other constants at the site, of any size; the model is as before afterwards."""
    with _altered(side, ((change.every, _other),), rng) as runner:
        yield runner


@contextmanager
def _altered(
    side: Side, alterations: Sequence[tuple[Sequence[Use], Alteration]], rng: np.random.Generator
) -> Iterator[Runner]:
    graph = side.model.graph
    replaced: list[tuple[ir.Node, int, ir.Value]] = []
    overrides: dict[str, Callable[[], np.ndarray]] = {}
    try:
        for uses, alter in alterations:
            for node, slot in uses:
                old = node.inputs[slot]
                assert old is not None and old.const_value is not None
                new = ir.Value(name=f"{old.name}~{len(replaced)}", type=old.type, const_value=old.const_value)
                graph.register_initializer(new)
                node.replace_input_with(slot, new)
                replaced.append((node, slot, old))
                content = alter(np.asarray(old.const_value.numpy()).astype(np.float64), rng)
                overrides[new.name or ""] = partial(np.asarray, content)
        yield side.runner(overrides)
    finally:
        for node, slot, old in replaced:
            new_value = node.inputs[slot]
            node.replace_input_with(slot, old)
            if new_value is not None and new_value.name:
                del graph.initializers[new_value.name]


def _hundredfold(array: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return array * EPSILON_FACTOR


def _nearby(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    signs = np.where(rng.random(array.shape) < 0.5, -1.0, 1.0)
    relative = signs * rng.uniform(0.5, 1.0, array.shape) * RELATIVE_CHANGE
    return np.where(array == 0.0, relative, array * (1.0 + relative))


def _other(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 1.5, array.shape)


def notices(runner: Runner, references: Sequence[Reference]) -> bool:
    """Whether the comparison on these inputs rejects what the runner computes."""
    for reference in references:
        try:
            results = runner.run(reference.inputs, list(reference.values))
        except Rejected:
            continue
        for name, bound in reference.bounds.items():
            error = np.abs(results[name] - reference.values[name])
            if error.size and not float(error.max()) <= bound:
                return True
    return False


def randomised(model: ir.Model, rng: np.random.Generator) -> ir.Model:
    """A copy with random constants of the same shapes and types.

    Weights of linear operators are normal, scaled to keep magnitudes; everything else that has more than one
    element, and all parameters of normalisations, is uniform in [0.5, 1.5), so that variances stay variances
    and signs stay allowed.
    """
    copy = model.clone()
    for value in list(copy.graph.initializers.values()):
        tensor = value.const_value
        uses = list(value.uses())
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        if any(use.idx in native_slots(use.node.domain, use.node.op_type) for use in uses):
            continue
        operators = {use.node.op_type for use in uses}
        if tensor.size <= 1 and not operators & (EPSILON_OPERATORS | LINEAR):
            continue
        shape = tensor.shape.numpy()
        if operators & LINEAR and len(shape) >= 2:
            fan = max(tensor.size // max(shape), 1)
            content = rng.standard_normal(shape) / np.sqrt(fan)
        else:
            content = rng.uniform(0.5, 1.5, shape)
        value.const_value = ir.tensor(content.astype(tensor.dtype.numpy()), name=value.name)
    return copy
