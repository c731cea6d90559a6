"""Which sums of terms are a normalisation, and over what."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from normfold.affine import Array64
from normfold.preparation.sizes import Size
from normfold.recognition.groupnorm.frame import Axis, Laid, NotRead, View, same_view, uncut
from normfold.recognition.groupnorm.norm import Kind
from normfold.recognition.groupnorm.reader import Reader
from normfold.recognition.groupnorm.terms import (
    ONE,
    Expression,
    Monomial,
    Radicand,
    Statistics,
    product,
    total,
)

_EQUAL = 1e-12


@dataclass(frozen=True)
class Meaning:
    """What ``Norm`` says of a value, without the nodes."""

    kind: Kind
    axes: tuple[int, ...]
    channel_axis: int
    channels: int
    groups: int
    epsilon: float
    scale: Array64
    shift: Array64
    unbiased: bool


def meaning_of(expression: Expression, reader: Reader) -> Meaning:
    """The normalisation that an expression is.

    With ``root = √(a·(q − μ²) + e)``, ``c·x/root − c·μ/root + β`` is a normalisation with ``γ = c/√a`` and
    ``epsilon = e/a``: the unbiased variance has ``a = K/(K−1)``.

    Raises:
        NotRead: where it is none.
    """
    if expression.form == "gate" or not same_view(expression.view, reader.view):
        raise NotRead("it is not of the shape of what it normalises")
    terms = dict(expression.terms)
    shift = terms.pop(ONE, Laid.number(0.0))
    top = next((key for key in terms if key[0] == 1), None)
    if top is None or top[1:3] != (0, 0) or len(top[3]) != 1 or top[3][0][1] != -1:
        raise NotRead("it is not divided by one root")
    scale = terms.pop(top)
    radicand = reader.statistics.factors[top[3][0][0]]
    if not isinstance(radicand, Radicand):
        raise NotRead("it is divided by a size")
    below: Monomial = (0, 1, 0, top[3])
    centre = terms.pop(below, None)
    if terms or radicand.constant < 0:
        raise NotRead("it has other terms")
    if centre is None:
        if radicand.mean != 0.0:
            raise NotRead("the mean is not subtracted")
    elif not (_cancels(radicand.mean, radicand.square) and _opposite(scale, centre)):
        raise NotRead("another multiple of the mean is subtracted")
    averaged = reader.statistics.averaged
    if averaged is None:
        raise NotRead("nothing is averaged")
    layout = _layout(reader.view, uncut(averaged), centred=centre is not None, affine=(scale, shift))
    kind, axes, channel_axis, groups = layout
    channel = uncut(reader.view[channel_axis])
    channels = math.prod(piece.size.number or 0 for piece in channel)
    if channels == 0:
        raise NotRead("the number of channels is not known")
    shape = [piece.size.number or 0 for piece in channel]
    unbiased = bool(radicand.counts)
    if unbiased and not _is_unbiased(radicand, averaged, reader.statistics):
        raise NotRead("its variance is multiplied by an open size")
    square = 1.0 if unbiased else radicand.square
    factor = 1.0 / math.sqrt(square)
    gamma, beta = (
        np.broadcast_to(laid.settled().aligned(channel), shape).reshape(-1) for laid in (scale, shift)
    )
    epsilon = radicand.constant / square
    # A factor within rounding of one is the square root of K·(K−1)/(K·(K−1)).
    gamma = gamma if abs(factor - 1.0) < _EQUAL else gamma * factor
    return Meaning(kind, axes, channel_axis, channels, groups, epsilon, gamma, beta.copy(), unbiased)


def _is_unbiased(radicand: Radicand, averaged: Axis, statistics: Statistics) -> bool:
    """Whether the variance is multiplied by ``K/(K − 1)``, K the open number of elements averaged over."""
    elements = statistics.count(Size.product(piece.size for piece in uncut(averaged)))
    less = total(elements, {ONE: Laid.number(1.0)}, -1.0)
    ((key, factor),) = product(elements, statistics.inverse(less)).items()
    number = factor.scalar
    return key[3] == radicand.counts and number is not None and _cancels(-number, radicand.square)


def _cancels(a: float, b: float) -> bool:
    return abs(a + b) <= _EQUAL * abs(b)


def _opposite(scale: Laid, centre: Laid) -> bool:
    both = scale.combined(centre, np.add).array
    return bool(np.abs(both).max(initial=0.0) <= _EQUAL * np.abs(scale.array).max(initial=0.0))


def _layout(
    view: View, averaged: Axis, *, centred: bool, affine: tuple[Laid, Laid]
) -> tuple[Kind, tuple[int, ...], int, int]:
    """Kind, averaged axes, channel axis and number of groups."""
    over = set(averaged)
    rank = len(view)
    axes = [uncut(axis) for axis in view]
    gone = tuple(place for place, axis in enumerate(axes) if axis and set(axis) <= over)
    kept = {place for place, axis in enumerate(axes) if axis and not set(axis) & over}
    cut = [place for place, axis in enumerate(axes) if axis and place not in gone and place not in kept]
    if 0 in gone or 0 in cut:
        raise NotRead("it averages over samples")
    varying = {piece.axis for laid in affine for piece in laid.settled().pieces}
    if not centred:
        if len(gone) == 1 and not cut and varying <= set(gone):
            return "rmsnorm", gone, gone[0], 1
        raise NotRead("a root mean square over several axes")
    if len(cut) == 1:
        channel = cut[0]
        inner = [piece in over for piece in axes[channel]]
        spatial = set(range(1, rank)) - {channel}
        if channel in (1, rank - 1) and inner == sorted(inner):
            groups = math.prod(p.size.number or 0 for p in axes[channel] if p not in over)
            if groups and all(place in gone or not axes[place] for place in spatial):
                return "groupnorm", tuple(sorted({*gone, channel})), channel, groups
    elif not cut and len(varying) <= 1:
        for channel in (1, rank - 1) if rank >= 3 else ():
            if varying - {channel} or not axes[channel]:
                continue
            spatial = set(range(1, rank)) - {channel}
            if not all(place in gone or not axes[place] for place in spatial):
                continue
            if channel in kept and spatial & set(gone):
                size = math.prod(piece.size.number or 0 for piece in axes[channel])
                # Without a number of channels, one axis is that of a LayerNorm.
                if size or len(gone) > 1:
                    return "instancenorm", gone, channel, size
            if channel in gone and len(gone) > 1:
                return "groupnorm", gone, channel, 1
        if len(gone) == 1 and varying <= set(gone):
            return "layernorm", gone, gone[0], 1
    raise NotRead("it averages over axes that no normalisation has")
