"""GroupNorm and its relatives, spelled in every way that networks spell them.

``SPELLINGS[name]`` computes the norm of x with the parameters of a :class:`Norm`; :class:`Together` puts many
of them, each on an input of its own, into one network, so that one export serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 2.0**-10
"""Exact in float16."""

Kind = Literal["group", "layer", "rms"]


class Norm(nn.Module):
    """One spelling of a norm of ``[N, C, *S]``, or ``[N, *S, C]`` where the spelling says so.

    Args:
        name: key of :data:`SPELLINGS`.
        channels: C.
        groups: G.
        rank: of the input.
    """

    def __init__(self, name: str, channels: int = 12, groups: int = 3, rank: int = 4) -> None:
        super().__init__()
        self.spelling, self.name = SPELLINGS[name], name
        self.channels, self.groups, self.rank = channels, groups, rank
        generator = torch.Generator().manual_seed(len(name) + groups)
        self.weight = nn.Parameter(torch.randn(channels, generator=generator))
        self.bias = nn.Parameter(torch.randn(channels, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.spelling.function(x, self)

    def on_channels(self, parameter: Tensor) -> Tensor:
        """A parameter ``[C]`` as ``[C, 1, …]``, which broadcasts against x."""
        return parameter.reshape(-1, *[1] * (self.rank - 2))

    def affine(self, x: Tensor) -> Tensor:
        return x * self.on_channels(self.weight) + self.on_channels(self.bias)

    def shape(self, sizes: Sequence[int] = (5, 6, 7), batch: int = 2) -> tuple[int, ...]:
        """Of an input, with the first of ``sizes`` as spatial sizes."""
        spatial = tuple(sizes[: self.rank - 2])
        if self.spelling.channels_last:
            return (batch, *spatial, self.channels)
        return (batch, self.channels, *spatial)

    @property
    def open_axes(self) -> dict[int, str]:
        """Names for every axis but the channels'."""
        channel = self.rank - 1 if self.spelling.channels_last else 1
        open_ = [axis for axis in range(self.rank) if axis != channel]
        return dict(zip(open_, ("batch", "depth", "height", "width"), strict=False))


class Together(nn.Module):
    """Norms beside each other, one input and one output for each."""

    def __init__(self, norms: Sequence[Norm]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(norm(x) for norm, x in zip(self.norms, inputs, strict=True))


@dataclass(frozen=True)
class Spelling:
    """How a norm is written.

    Attributes:
        function: computes it.
        kind: ``group`` takes groups; ``layer`` and ``rms`` are over the channels of each position.
        ranks: that it is written for.
        channels_last: whether its input is ``[N, *S, C]``.
        affine: whether it has scale and shift.
        silu: whether ``v · sigmoid(v)`` follows.
        unbiased: whether its variance divides by K − 1.
        groups: ``one`` for spellings that have a single group, ``each`` for as many as channels.
        torchscript: whether that exporter can do it: not at all, or not with open sizes.
    """

    function: Callable[[Tensor, Norm], Tensor]
    kind: Kind = "group"
    ranks: tuple[int, ...] = (2, 3, 4, 5)
    channels_last: bool = False
    affine: bool = True
    silu: bool = False
    unbiased: bool = False
    groups: Literal["any", "one", "each"] = "any"
    torchscript: Literal["yes", "static", "no"] = "yes"


def _layer(x: Tensor, norm: Norm) -> Tensor:
    return F.group_norm(x, norm.groups, norm.weight, norm.bias, EPSILON)


def _layer_plain(x: Tensor, norm: Norm) -> Tensor:
    return F.group_norm(x, norm.groups, eps=EPSILON)


def _layer_scale_only(x: Tensor, norm: Norm) -> Tensor:
    return F.group_norm(x, norm.groups, norm.weight, None, EPSILON)


def _layer_shift_only(x: Tensor, norm: Norm) -> Tensor:
    return F.group_norm(x, norm.groups, None, norm.bias, EPSILON)


def _layer_silu(x: Tensor, norm: Norm) -> Tensor:
    return F.silu(_layer(x, norm))


def _layer_swish(x: Tensor, norm: Norm) -> Tensor:
    y = _layer(x, norm)
    return torch.sigmoid(y) * y


def _layer_affine(x: Tensor, norm: Norm) -> Tensor:
    """FiLM with constants, or a layer-scale."""
    return _layer(x, norm) * norm.on_channels(norm.bias) + norm.on_channels(norm.weight)


def _layer_in_float32(x: Tensor, norm: Norm) -> Tensor:
    """As diffusion models write GroupNorm32."""
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.group_norm(x.float(), norm.groups, weight, bias, EPSILON).type(x.dtype)


def _layer_in_float32_affine_outside(x: Tensor, norm: Norm) -> Tensor:
    return norm.affine(F.group_norm(x.float(), norm.groups, eps=EPSILON).type(x.dtype))


def _two_passes_in_float32(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x.float(), norm)
    mean = rows.mean(-1, keepdim=True)
    variance = (rows - mean).square().mean(-1, keepdim=True)
    return norm.affine(((rows - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape).to(x.dtype))


def _as_instance_norm(x: Tensor, norm: Norm) -> Tensor:
    return norm.affine(F.instance_norm(_rows(x, norm), eps=EPSILON).reshape(x.shape))


def _as_layer_norm(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    return norm.affine(F.layer_norm(rows, rows.shape[-1:], eps=EPSILON).reshape(x.shape))


def _as_layer_norm_of_everything(x: Tensor, norm: Norm) -> Tensor:
    return norm.affine(F.layer_norm(x, x.shape[1:], eps=EPSILON))


def _two_passes(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    centred = rows - mean
    variance = (centred * centred).mean(-1, keepdim=True)
    return norm.affine((centred / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _two_passes_plain(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = ((rows - mean) ** 2).mean(-1, keepdim=True)
    return ((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape)


def _commuted(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    normal = (torch.rsqrt(EPSILON + variance) * centred).reshape(x.shape)
    return norm.on_channels(norm.bias) + norm.on_channels(norm.weight) * normal


def _negated(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = (mean - rows).pow(2).mean(-1, keepdim=True)
    normal = (-(mean - rows) / (variance + EPSILON).sqrt()).reshape(x.shape)
    return norm.affine(normal)


def _biased(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    variance = rows.var(-1, keepdim=True, unbiased=False)
    return norm.affine(((rows - rows.mean(-1, keepdim=True)) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _unbiased(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    variance = rows.var(-1, keepdim=True)
    return norm.affine(((rows - rows.mean(-1, keepdim=True)) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _unbiased_five_axes(x: Tensor, norm: Norm) -> Tensor:
    parts = _parts(x, norm)
    axes = list(range(2, parts.dim()))
    variance, mean = torch.var_mean(parts, axes, keepdim=True)
    return norm.affine(((parts - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape))


def _var_mean(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    variance, mean = torch.var_mean(rows, -1, keepdim=True, unbiased=False)
    return norm.affine(((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _mean_of_squares(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = (rows * rows).mean(-1, keepdim=True) - mean**2
    return norm.affine(((rows - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape))


def _mean_of_squares_guarded(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = torch.clamp(rows.square().mean(-1, keepdim=True) - mean * mean, min=0.0)
    return norm.affine(((rows - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape))


def _sums(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    count = rows.shape[-1]
    mean = rows.sum(-1, keepdim=True) / count
    variance = (rows - mean).square().sum(-1, keepdim=True) / count
    return norm.affine(((rows - mean) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _reciprocal(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    deviation = torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + EPSILON)
    return norm.affine((centred * (1.0 / deviation)).reshape(x.shape))


def _power(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    return norm.affine(
        (centred * (centred.pow(2).mean(-1, keepdim=True) + EPSILON).pow(-0.5)).reshape(x.shape)
    )


def _power_of_half(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    return norm.affine((centred / (centred.pow(2).mean(-1, keepdim=True) + EPSILON) ** 0.5).reshape(x.shape))


def _five_axes(x: Tensor, norm: Norm) -> Tensor:
    parts = _parts(x, norm)
    axes = list(range(2, parts.dim()))
    mean = parts.mean(axes, keepdim=True)
    variance = (parts - mean).pow(2).mean(axes, keepdim=True)
    return norm.affine(((parts - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _three_axes(x: Tensor, norm: Norm) -> Tensor:
    """``[N·G, C/G·S]``: every group a row."""
    rows = x.reshape(x.shape[0] * norm.groups, -1)
    mean = rows.mean(1, keepdim=True)
    variance = (rows - mean).pow(2).mean(1, keepdim=True)
    return norm.affine(((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _without_keepdim(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    mean = rows.mean(-1)[:, :, None]
    variance = (rows - mean).pow(2).mean(-1)[:, :, None]
    return norm.affine(((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _affine_per_group(x: Tensor, norm: Norm) -> Tensor:
    """Scale and shift are applied while the groups are apart."""
    parts = _parts(x, norm)
    axes = list(range(2, parts.dim()))
    mean = parts.mean(axes, keepdim=True)
    variance = (parts - mean).pow(2).mean(axes, keepdim=True)
    shape = (norm.groups, norm.channels // norm.groups, *[1] * (norm.rank - 2))
    normal = (parts - mean) / torch.sqrt(variance + EPSILON)
    return (normal * norm.weight.reshape(shape) + norm.bias.reshape(shape)).reshape(x.shape)


def _einops(x: Tensor, norm: Norm) -> Tensor:
    """``rearrange(x, 'b (g c) … -> b g (c …)')`` cuts the axes in one reshape and merges them in a second."""
    parts = _parts(x, norm)
    rows = parts.permute(*range(parts.dim())).reshape(x.shape[0], norm.groups, -1)
    mean = rows.mean(-1, keepdim=True)
    variance = rows.var(-1, unbiased=False, keepdim=True)
    normal = (rows - mean) / torch.sqrt(variance + EPSILON)
    return norm.affine(normal.reshape(parts.shape).reshape(x.shape))


def _einops_groups_first(x: Tensor, norm: Norm) -> Tensor:
    """``rearrange(x, 'b (g c) … -> (b g) c …')``, each a sample, and back."""
    parts = _parts(x, norm)
    samples = parts.reshape(-1, *parts.shape[2:])
    axes = list(range(1, samples.dim()))
    mean = samples.mean(axes, keepdim=True)
    variance = samples.var(axes, unbiased=False, keepdim=True)
    normal = (samples - mean) * torch.rsqrt(variance + EPSILON)
    return norm.affine(normal.reshape(parts.shape).reshape(x.shape))


def _mean_twice(x: Tensor, norm: Norm) -> Tensor:
    rows = _rows(x, norm)
    variance = ((rows - rows.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
    return norm.affine(
        ((rows - rows.mean(-1, keepdim=True)) / torch.sqrt(variance + EPSILON)).reshape(x.shape)
    )


def _folded_affine(x: Tensor, norm: Norm) -> Tensor:
    """``x·a + (β − μ·a)`` with ``a = γ/σ``, on channels first."""
    parts = _parts(x, norm)
    axes = list(range(2, parts.dim()))
    shape = (norm.groups, norm.channels // norm.groups, *[1] * (norm.rank - 2))
    mean = parts.mean(axes, keepdim=True)
    variance = (parts - mean).square().mean(axes, keepdim=True)
    inverse = torch.rsqrt(variance + EPSILON) * norm.weight.reshape(shape)
    return (parts * inverse + (norm.bias.reshape(shape) - mean * inverse)).reshape(x.shape)


def _keras(x: Tensor, norm: Norm) -> Tensor:
    """Channels last, as Keras and ``tf.nn.batch_normalization`` spell it: ``x·a + (β − μ·a)``."""
    parts = x.reshape(*x.shape[:-1], norm.groups, norm.channels // norm.groups)
    axes = [*range(1, parts.dim() - 2), parts.dim() - 1]
    mean = parts.mean(axes, keepdim=True)
    variance = (parts - mean).square().mean(axes, keepdim=True)
    shape = (norm.groups, norm.channels // norm.groups)
    inverse = torch.rsqrt(variance + EPSILON) * norm.weight.reshape(shape)
    return (parts * inverse + (norm.bias.reshape(shape) - mean * inverse)).reshape(x.shape)


def _keras_permuted(x: Tensor, norm: Norm) -> Tensor:
    return _first(_keras(_last(x), norm))


def _channels_last(x: Tensor, norm: Norm) -> Tensor:
    """A layer on channels first, in a network that is channels last."""
    return _last(_layer(_first(x), norm))


def _instance(x: Tensor, norm: Norm) -> Tensor:
    return F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=EPSILON)


def _instance_plain(x: Tensor, norm: Norm) -> Tensor:
    return F.instance_norm(x, eps=EPSILON)


def _instance_by_hand(x: Tensor, norm: Norm) -> Tensor:
    axes = list(range(2, x.dim()))
    mean = x.mean(axes, keepdim=True)
    variance = x.var(axes, unbiased=False, keepdim=True)
    return norm.affine((x - mean) / torch.sqrt(variance + EPSILON))


def _instance_channels_last(x: Tensor, norm: Norm) -> Tensor:
    axes = list(range(1, x.dim() - 1))
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).square().mean(axes, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + EPSILON) * norm.weight + norm.bias


def _layer_norm_permuted(x: Tensor, norm: Norm) -> Tensor:
    """ConvNeXt."""
    return _first(F.layer_norm(_last(x), (norm.channels,), norm.weight, norm.bias, EPSILON))


def _layer_norm_last(x: Tensor, norm: Norm) -> Tensor:
    return F.layer_norm(x, (norm.channels,), norm.weight, norm.bias, EPSILON)


def _layer_norm_channels_first(x: Tensor, norm: Norm) -> Tensor:
    """``LayerNorm2d`` by hand."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return norm.affine((x - mean) / torch.sqrt(variance + EPSILON))


def _rms_last(x: Tensor, norm: Norm) -> Tensor:
    return F.rms_norm(x, (norm.channels,), norm.weight, EPSILON)


def _rms_by_hand(x: Tensor, norm: Norm) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * norm.weight


def _rms_in_float32(x: Tensor, norm: Norm) -> Tensor:
    """As language models write it."""
    wide = x.float()
    return norm.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)).to(x.dtype)


def _rms_channels_first(x: Tensor, norm: Norm) -> Tensor:
    return norm.on_channels(norm.weight) * (x / torch.sqrt((x * x).mean(1, keepdim=True) + EPSILON))


def _rows(x: Tensor, norm: Norm) -> Tensor:
    """``[N, G, C/G·S]``."""
    return x.reshape(x.shape[0], norm.groups, -1)


def _last(x: Tensor) -> Tensor:
    """``[N, C, *S]`` as ``[N, *S, C]``."""
    return x.permute(0, *range(2, x.dim()), 1)


def _first(x: Tensor) -> Tensor:
    """``[N, *S, C]`` as ``[N, C, *S]``."""
    return x.permute(0, x.dim() - 1, *range(1, x.dim() - 1))


def _parts(x: Tensor, norm: Norm) -> Tensor:
    """``[N, G, C/G, *S]``."""
    return x.view(x.shape[0], norm.groups, norm.channels // norm.groups, *x.shape[2:])


_SPATIAL = (3, 4, 5)

SPELLINGS: dict[str, Spelling] = {
    "layer": Spelling(_layer),
    "layer, no affine": Spelling(_layer_plain, affine=False),
    "layer, scale only": Spelling(_layer_scale_only),
    "layer, shift only": Spelling(_layer_shift_only),
    "layer, SiLU": Spelling(_layer_silu, silu=True),
    "layer, swish by hand": Spelling(_layer_swish, silu=True),
    "layer, affine behind": Spelling(_layer_affine),
    "layer in float32": Spelling(_layer_in_float32),
    "layer in float32, affine outside": Spelling(_layer_in_float32_affine_outside),
    "two passes in float32": Spelling(_two_passes_in_float32),
    "instance norm of rows": Spelling(_as_instance_norm, torchscript="static"),
    "layer norm of rows": Spelling(_as_layer_norm, torchscript="static"),
    "layer norm of everything": Spelling(_as_layer_norm_of_everything, groups="one", torchscript="static"),
    "two passes": Spelling(_two_passes),
    "two passes, no affine": Spelling(_two_passes_plain, affine=False),
    "commuted": Spelling(_commuted),
    "negated": Spelling(_negated),
    "biased": Spelling(_biased),
    "unbiased": Spelling(_unbiased, unbiased=True),
    "unbiased, more axes": Spelling(_unbiased_five_axes, unbiased=True),
    "var_mean": Spelling(_var_mean),
    "mean of squares": Spelling(_mean_of_squares),
    "mean of squares, guarded": Spelling(_mean_of_squares_guarded),
    "sums": Spelling(_sums),
    "reciprocal": Spelling(_reciprocal),
    "power": Spelling(_power),
    "power of a half": Spelling(_power_of_half),
    "more axes": Spelling(_five_axes),
    "groups as samples": Spelling(_three_axes),
    "without keepdim": Spelling(_without_keepdim),
    "affine per group": Spelling(_affine_per_group),
    "einops": Spelling(_einops),
    "einops, groups as samples": Spelling(_einops_groups_first),
    "mean twice": Spelling(_mean_twice),
    "folded affine": Spelling(_folded_affine),
    "Keras": Spelling(_keras, channels_last=True, ranks=_SPATIAL),
    "Keras, permuted": Spelling(_keras_permuted, ranks=_SPATIAL),
    "channels last": Spelling(_channels_last, channels_last=True, ranks=_SPATIAL),
    "instance norm": Spelling(_instance, ranks=_SPATIAL, groups="each"),
    "instance norm, no affine": Spelling(_instance_plain, ranks=_SPATIAL, affine=False, groups="each"),
    "instance norm by hand": Spelling(_instance_by_hand, ranks=_SPATIAL, groups="each"),
    "instance norm, channels last": Spelling(
        _instance_channels_last, ranks=_SPATIAL, groups="each", channels_last=True
    ),
    "layer norm, permuted": Spelling(_layer_norm_permuted, "layer", _SPATIAL),
    "layer norm": Spelling(_layer_norm_last, "layer", channels_last=True),
    "layer norm, channels first": Spelling(_layer_norm_channels_first, "layer"),
    "RMS norm": Spelling(_rms_last, "rms", channels_last=True, torchscript="no"),
    "RMS norm by hand": Spelling(_rms_by_hand, "rms", channels_last=True),
    "RMS norm in float32": Spelling(_rms_in_float32, "rms", channels_last=True),
    "RMS norm, channels first": Spelling(_rms_channels_first, "rms"),
}
