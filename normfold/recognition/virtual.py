"""Virtual nodes: one node per affine in the working copy, whatever it was spelled as
(docs/decisions/0001)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import onnx_ir as ir

from normfold.affine import Affine

DOMAIN = "normfold.virtual"
OP_TYPE = "Affine"
_KEY = "normfold.affine"


@dataclass
class SiteRecord:
    """One affine of the original model, and what has become of it so far.

    Attributes:
        name: the value that it produced in the original.
        kind: ``batchnorm`` or ``affine``.
        operators: operator types of its nodes, in order.
        statistics: BatchNormalization parameters for provenance: scale, B, mean, var, epsilon.
    """

    name: str
    kind: str
    operators: tuple[str, ...]
    action: str = "kept"
    rule: str | None = None
    into: list[ir.Node] = field(default_factory=list)
    code: str | None = None
    reason: str | None = None
    elements: tuple[int, int] | None = None
    statistics: dict[str, object] | None = None
    silent: bool = False


@dataclass
class VirtualAffine:
    """What a virtual node stands for.

    Attributes:
        affine: what it applies now.
        spelling: the detached nodes that it replaced; empty if it was made by a fold.
        inputs: the inputs that each of those nodes had.
        x_slot: the input slot of the first of them that took x.
        records: the sites of the original model whose affine it carries.
        touched: whether ``affine`` differs from what ``spelling`` says.
        kernel_axis: the axis, from the end, of the scale and shift that it is of a kernel which runtimes
            recognise by them; ``None`` where it is of none.
        varied: whether it has been made of an affine that varied along one axis.
    """

    affine: Affine
    spelling: tuple[ir.Node, ...] = ()
    inputs: tuple[tuple[ir.Value | None, ...], ...] = ()
    x_slot: int = 0
    records: list[SiteRecord] = field(default_factory=list)
    touched: bool = False
    kernel_axis: int | None = None
    varied: bool = False

    @property
    def varies(self) -> bool:
        """Whether it varies along one axis, or might, were the numbers other ones that it is made of."""
        return self.varied or len(self.affine.axes) == 1 or self.batchnorm is not None

    @property
    def anchored(self) -> bool:
        """Whether it stays Mul and Add, and takes what its neighbours give as long as it remains that."""
        return self.kernel_axis is not None

    @property
    def keeps_mul(self) -> bool:
        """Whether the kernel has a Mul, which it has to have even for a scale of 1."""
        return self.anchored and self.spelling[0].op_type == "Mul"

    def takes(self, affine: Affine) -> bool:
        """Whether it remains what it is with this affine behind it or in front."""
        return self.kernel_axis is None or kernel_takes(self.kernel_axis, self.spelling[0], affine)

    @property
    def batchnorm(self) -> tuple[ir.Node, tuple[ir.Value | None, ...]] | None:
        """The BatchNormalization per channel among the nodes that it replaced, with its inputs."""
        for member, inputs in zip(self.spelling, self.inputs, strict=True):
            if member.op_type == "BatchNormalization" and member.attributes.get_int("spatial", 1) == 1:
                return member, inputs
        return None


def kernel_takes(axis: int, first: ir.Node, affine: Affine) -> bool:
    """Whether the scale and shift of a kernel, of which ``first`` is the first node, take an affine: one on
    their axis, and no scale where there is only a shift."""
    return affine.lies_on(axis) and (first.op_type == "Mul" or not affine.has_scale)


def is_virtual(node: ir.Node | None) -> bool:
    return node is not None and node.domain == DOMAIN


def virtual(node: ir.Node) -> VirtualAffine:
    return cast("VirtualAffine", node.meta[_KEY])


def make_virtual(x: ir.Value, output: ir.Value, content: VirtualAffine) -> ir.Node:
    node = ir.Node(DOMAIN, OP_TYPE, [x], outputs=[output])
    node.meta[_KEY] = content
    return node
