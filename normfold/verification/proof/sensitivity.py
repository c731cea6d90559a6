"""Small errors planted into the original, to see whether a comparison would notice them.

A proof that accepts a hundredfold epsilon at a site has not looked at that site: a zero gamma or a dead
branch hides it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from normfold.evaluation import Alterations
from normfold.evaluation.promotion import native_slots
from normfold.reporting.report import Site
from normfold.verification.graph_index import literal

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
LINEAR = frozenset({"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul"})

Use = tuple[ir.Node, int]
"""One use of a constant: the node and the input slot."""


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

    def planted(self, rng: np.random.Generator) -> Alterations:
        """The change as an evaluation takes it."""
        operands = {use: _hundredfold(_content(use)) for use in self.added}
        operands |= {use: _nearby(_content(use), rng) for use in self.constants}
        return Alterations(operands, {node: _larger_epsilon(node) for node in self.epsilons})

    def replaced(self, rng: np.random.Generator) -> Alterations:
        """Other constants at the site, of any size."""
        return Alterations({use: rng.uniform(0.5, 1.5, _content(use).shape) for use in self.every})


def change_at(nodes: Sequence[ir.Node], constants: Collection[ir.Value], site: Site) -> Change:
    """Finds what to perturb for a site.

    Args:
        nodes: the original's side of the region, with the nodes that make its constants.
        constants: values that no input can change.
        site: the site; its ``nodes`` tell how far back it reaches.

    Returns:
        Epsilons where the site has any, otherwise its constants; empty where it has neither.
    """
    made_of, uses = _extent(nodes, constants, site)
    change = Change(every=uses)
    change.epsilons = [node for node in made_of if node.op_type in EPSILON_OPERATORS]
    change.added = [use for use in uses if _is_epsilon(use)]
    if not change.epsilons and not change.added:
        change.constants = uses
    return change


def _extent(
    nodes: Sequence[ir.Node], constants: Collection[ir.Value], site: Site
) -> tuple[list[ir.Node], list[Use]]:
    """Nodes that the site was made of, and the uses of float constants by them and their constant
    expressions."""
    start = next((node for node in nodes for v in node.outputs if v.name == site.site), None)
    if start is None:
        return [], []
    inside = set(nodes)
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
            tensor = literal(value) if value in constants else None
            if tensor is not None:
                if slot not in kept and tensor.dtype.is_floating_point():
                    uses[(node, slot)] = None
            elif (producer := value.producer()) in inside:
                pending.append(producer)
    return list(accepted), list(uses)


def _content(use: Use) -> np.ndarray:
    """The constant that is used, in float64."""
    node, slot = use
    value = node.inputs[slot]
    tensor = literal(value) if value is not None else None
    assert tensor is not None
    return np.asarray(tensor.numpy()).astype(np.float64)


def _is_epsilon(use: Use) -> bool:
    """Whether the use is the small scalar in ``sqrt(variance + epsilon)``."""
    node, _ = use
    if node.op_type != "Add":
        return False
    content = _content(use)
    if content.size != 1 or not 0 < float(content.reshape(())) <= LARGEST_EPSILON:
        return False
    return any(reader.op_type in ROOTS for reader, _ in node.outputs[0].uses())


def _larger_epsilon(node: ir.Node) -> dict[str, ir.Attr]:
    attribute = node.attributes.get("epsilon")
    value = attribute.as_float() if attribute is not None else DEFAULT_EPSILON
    return {"epsilon": ir.AttrFloat32("epsilon", value * EPSILON_FACTOR or 1e-3)}


def _hundredfold(array: np.ndarray) -> np.ndarray:
    return np.asarray(array * EPSILON_FACTOR)


def _nearby(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    signs = np.where(rng.random(array.shape) < 0.5, -1.0, 1.0)
    relative = signs * rng.uniform(0.5, 1.0, array.shape) * RELATIVE_CHANGE
    return np.where(array == 0.0, relative, array * (1.0 + relative))


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
