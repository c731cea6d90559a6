"""What recognition finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from normfold.affine import Array64

Kind = Literal["groupnorm", "instancenorm", "layernorm", "rmsnorm"]


@dataclass(frozen=True, eq=False)
class Norm:
    """``y = activation(scale ⊙ (x − mean) / √(var + epsilon) + shift)``.

    Mean and (biased) variance are taken over each sample's spatial axes and the channels of one of ``groups``
    contiguous groups; for layernorm and rmsnorm over ``axes``. rmsnorm is ``x / √(mean(x²) + epsilon)``.

    Attributes:
        x: the value that is normalised.
        y: the result, of the shape and type of ``x``.
        kind: ``groupnorm``, ``instancenorm`` (as many groups as channels), ``layernorm`` or ``rmsnorm``.
        axes: axes of ``x`` that are averaged over, the channel axis of a groupnorm included.
        channel_axis: axis of ``x`` that scale and shift lie on.
        channels: its size.
        groups: number of groups that it splits into; 1 for layernorm and rmsnorm.
        epsilon: what is added to the biased variance.
        scale: shape [channels].
        shift: shape [channels].
        activation: ``silu`` where ``v · sigmoid(v)`` of the above follows.
        unbiased: the variance is multiplied by ``K/(K − 1)`` for an open number K of elements averaged over;
            a static K is part of ``epsilon`` and ``scale``.
        nodes: what it is made of, in graph order; nothing else reads what they compute, other than ``y``.
        before_activation: the same up to the value that the activation takes, where the graph has that value.
    """

    x: ir.Value
    y: ir.Value
    kind: Kind
    axes: tuple[int, ...]
    channel_axis: int
    channels: int
    groups: int
    epsilon: float
    scale: Array64
    shift: Array64
    activation: Literal["silu"] | None
    unbiased: bool
    nodes: tuple[ir.Node, ...]
    before_activation: Norm | None = None

    @property
    def operators(self) -> tuple[str, ...]:
        return tuple(node.op_type for node in self.nodes)

    @property
    def has_affine(self) -> bool:
        return bool((self.scale != 1.0).any() or (self.shift != 0.0).any())


@dataclass(frozen=True)
class LookAlike:
    """A computation on statistics of its input that is none of the above.

    Attributes:
        node: the one that takes the root of a variance.
        code: reason code.
        reason: one sentence.
    """

    node: ir.Node
    code: str
    reason: str
