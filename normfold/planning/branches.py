"""Parallel branches: a sum of Conv, BatchNormalization, identity and pooling over one input is one Conv.

:mod:`normfold.planning.linear_branches` says what a branch is and how branches add up; here they are found in
sums, and chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.planning.linear_branches import Branch, Layout, is_private, kernel_of, layout_of, readings
from normfold.planning.sums import is_sum, sign
from normfold.preparation.shapes import Dim
from normfold.preparation.workspace import Workspace

# Pairs are tried where not all branches can merge; no network's block sums more than this.
_MOST_PAIRED = 16


@dataclass(frozen=True)
class Term:
    """One operand of a sum: ``sign · value``."""

    value: ir.Value
    sign: float


@dataclass(frozen=True)
class BranchMerge:
    """Replace ``root``'s sum by one Conv over ``x``, plus the ``others``.

    Attributes:
        root: the sum's last node.
        nodes: every node that goes: sums and branches.
        x: what all branches read.
        layout: of the Conv.
        kernel: [O, Cin/groups, *k].
        bias: [O].
        like: a value with the shape of the Conv's result.
        others: what the sum adds to it.
        dtype: of the Conv.
    """

    root: ir.Node
    nodes: tuple[ir.Node, ...]
    x: ir.Value
    layout: Layout
    kernel: Array64
    bias: Array64
    like: ir.Value
    others: tuple[Term, ...]
    dtype: ir.DataType


def find_merge(node: ir.Node, workspace: Workspace) -> BranchMerge | None:
    """The merge that ends in ``node``, the last of a sum, if one costs no more than what it replaces."""
    return _merge_of(node, workspace) if is_sum(node) and not _feeds_sum(node) else None


def _feeds_sum(node: ir.Node) -> bool:
    """Whether its result is read by one other sum only, which then is the root."""
    return is_private(node.outputs[0]) and is_sum(next(iter(node.outputs[0].uses())).node)


@dataclass(frozen=True)
class _Sum:
    """One node of a tree of sums. Its operands are terms and, by node, other sums that only it reads."""

    sign: float
    operands: tuple[Term | ir.Node, ...]


class _Tree:
    """The sums that end in ``root``, the outer ones first."""

    def __init__(self, root: ir.Node) -> None:
        self._sums: dict[ir.Node, _Sum] = {}
        stack = [(root, 1.0)]
        while stack:
            node, outer = stack.pop()
            operands: list[Term | ir.Node] = []
            for slot, value in enumerate(node.inputs):
                assert value is not None
                own = outer * sign(node, slot)
                producer = value.producer()
                if producer is not None and is_sum(producer) and is_private(value):
                    stack.append((producer, own))
                    operands.append(producer)
                else:
                    operands.append(Term(value, own))
            self._sums[node] = _Sum(outer, tuple(operands))

    def terms(self) -> Iterator[Term]:
        for inner in self._sums.values():
            yield from (operand for operand in inner.operands if isinstance(operand, Term))

    def split(self, taken: Sequence[Term]) -> tuple[list[ir.Node], list[Term]]:
        """The sums that go with the taken terms, and what is left to add: a sum of others stays whole."""
        gone: dict[ir.Node, _Sum] = {}
        names = {id(term) for term in taken}
        for node, own in reversed(self._sums.items()):
            if any(
                operand in gone if isinstance(operand, ir.Node) else id(operand) in names
                for operand in own.operands
            ):
                gone[node] = own
        others: list[Term] = []
        for own in reversed(gone.values()):
            for operand in own.operands:
                if isinstance(operand, Term):
                    others += [] if id(operand) in names else [operand]
                elif operand not in gone:
                    others.append(Term(operand.outputs[0], self._sums[operand].sign))
        return list(gone), others


@dataclass(frozen=True)
class _Member:
    """A term of the sum, read as a branch. ``branch`` has the term's sign."""

    term: Term
    branch: Branch


def _merge_of(root: ir.Node, workspace: Workspace) -> BranchMerge | None:
    tree = _Tree(root)
    candidates: dict[ir.Value, list[_Member]] = {}
    for term in tree.terms():
        for x, branch in readings(term.value, workspace):
            signed = branch.scaled(np.full(branch.bias.shape, term.sign), np.zeros(1))
            candidates.setdefault(x, []).append(_Member(term, signed))
    for x, members in candidates.items():
        dtype = workspace.shapes.dtype(x)
        found = _cheapest(members, (workspace.dims(x) or ())[2:])
        if found is None or dtype is None:
            continue
        chosen, layout = found
        branches = [member.branch for member in chosen]
        sums, others = tree.split([member.term for member in chosen])
        return BranchMerge(
            root=root,
            nodes=tuple(dict.fromkeys((*sums, *(node for branch in branches for node in branch.nodes)))),
            x=x,
            layout=layout,
            kernel=kernel_of(branches, layout),
            bias=np.sum([branch.bias for branch in branches], axis=0),
            like=chosen[0].term.value,
            others=tuple(others),
            dtype=dtype,
        )
    return None


def _cheapest(members: Sequence[_Member], sizes: Sequence[Dim]) -> tuple[Sequence[_Member], Layout] | None:
    """All members as one branch if that costs no more than they do, else the two that save most together."""
    layout = _worthwhile(members, sizes)
    if layout is not None:
        return members, layout
    pairs = [
        (pair, layout)
        for pair in itertools.combinations(members[:_MOST_PAIRED], 2)
        if (layout := _worthwhile(pair, sizes)) is not None
    ]
    return max(pairs, key=lambda found: _cost(found[0]) - found[1].multiplies, default=None)


def _worthwhile(members: Sequence[_Member], sizes: Sequence[Dim]) -> Layout | None:
    """The layout of one Conv in place of the members, if there is one that costs no more."""
    if len(members) < 2 or not any(member.branch.has_conv for member in members):
        return None
    layout = layout_of([member.branch for member in members], sizes)
    return None if layout is None or layout.multiplies > _cost(members) else layout


def _cost(members: Sequence[_Member]) -> float:
    """Multiply-adds per output element of the members and of adding them up."""
    return sum(member.branch.multiplies for member in members) + len(members) - 1
