"""GroupNorm in every way that networks spell it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.norms.spelling import (
    EPSILON,
    Norm,
    Spelling,
    as_parts,
    as_rows,
    channels_first,
    channels_last,
    wide,
)


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
    weight, bias = wide(norm.weight), wide(norm.bias)
    return F.group_norm(wide(x), norm.groups, weight, bias, EPSILON).type(x.dtype)


def _layer_in_float32_affine_outside(x: Tensor, norm: Norm) -> Tensor:
    return norm.affine(F.group_norm(wide(x), norm.groups, eps=EPSILON).type(x.dtype))


def _two_passes_in_float32(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(wide(x), norm)
    mean = rows.mean(-1, keepdim=True)
    variance = (rows - mean).square().mean(-1, keepdim=True)
    return norm.affine(((rows - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape).to(x.dtype))


def _as_instance_norm(x: Tensor, norm: Norm) -> Tensor:
    return norm.affine(F.instance_norm(as_rows(x, norm), eps=EPSILON).reshape(x.shape))


def _as_layer_norm(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    return norm.affine(F.layer_norm(rows, rows.shape[-1:], eps=EPSILON).reshape(x.shape))


def _as_layer_norm_of_everything(x: Tensor, norm: Norm) -> Tensor:
    return norm.affine(F.layer_norm(x, x.shape[1:], eps=EPSILON))


def _two_passes(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    centred = rows - mean
    variance = (centred * centred).mean(-1, keepdim=True)
    return norm.affine((centred / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _two_passes_plain(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = ((rows - mean) ** 2).mean(-1, keepdim=True)
    return ((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape)


def _commuted(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    normal = (torch.rsqrt(EPSILON + variance) * centred).reshape(x.shape)
    return norm.on_channels(norm.bias) + norm.on_channels(norm.weight) * normal


def _negated(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = (mean - rows).pow(2).mean(-1, keepdim=True)
    normal = (-(mean - rows) / (variance + EPSILON).sqrt()).reshape(x.shape)
    return norm.affine(normal)


def _biased(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    variance = rows.var(-1, keepdim=True, unbiased=False)
    return norm.affine(((rows - rows.mean(-1, keepdim=True)) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _unbiased(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    variance = rows.var(-1, keepdim=True)
    return norm.affine(((rows - rows.mean(-1, keepdim=True)) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _unbiased_five_axes(x: Tensor, norm: Norm) -> Tensor:
    parts = as_parts(x, norm)
    axes = list(range(2, parts.dim()))
    variance, mean = torch.var_mean(parts, axes, keepdim=True)
    return norm.affine(((parts - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape))


def _var_mean(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    variance, mean = torch.var_mean(rows, -1, keepdim=True, unbiased=False)
    return norm.affine(((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _mean_of_squares(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = (rows * rows).mean(-1, keepdim=True) - mean**2
    return norm.affine(((rows - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape))


def _mean_of_squares_guarded(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    mean = rows.mean(-1, keepdim=True)
    variance = torch.clamp(rows.square().mean(-1, keepdim=True) - mean * mean, min=0.0)
    return norm.affine(((rows - mean) * torch.rsqrt(variance + EPSILON)).reshape(x.shape))


def _sums(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    count = rows.shape[-1]
    mean = rows.sum(-1, keepdim=True) / count
    variance = (rows - mean).square().sum(-1, keepdim=True) / count
    return norm.affine(((rows - mean) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _sums_less_one(x: Tensor, norm: Norm) -> Tensor:
    """The unbiased variance, its divisor an integer until it is used."""
    rows = as_rows(x, norm)
    count = rows.shape[-1]
    mean = rows.sum(-1, keepdim=True) / count
    variance = (rows - mean).square().sum(-1, keepdim=True) / (count - 1)
    return norm.affine(((rows - mean) / (variance + EPSILON).sqrt()).reshape(x.shape))


def _reciprocal(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    deviation = torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + EPSILON)
    return norm.affine((centred * (1.0 / deviation)).reshape(x.shape))


def _power(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    return norm.affine(
        (centred * (centred.pow(2).mean(-1, keepdim=True) + EPSILON).pow(-0.5)).reshape(x.shape)
    )


def _power_of_half(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    centred = rows - rows.mean(-1, keepdim=True)
    return norm.affine((centred / (centred.pow(2).mean(-1, keepdim=True) + EPSILON) ** 0.5).reshape(x.shape))


def _five_axes(x: Tensor, norm: Norm) -> Tensor:
    parts = as_parts(x, norm)
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
    rows = as_rows(x, norm)
    mean = rows.mean(-1)[:, :, None]
    variance = (rows - mean).pow(2).mean(-1)[:, :, None]
    return norm.affine(((rows - mean) / torch.sqrt(variance + EPSILON)).reshape(x.shape))


def _affine_per_group(x: Tensor, norm: Norm) -> Tensor:
    """Scale and shift are applied while the groups are apart."""
    parts = as_parts(x, norm)
    axes = list(range(2, parts.dim()))
    mean = parts.mean(axes, keepdim=True)
    variance = (parts - mean).pow(2).mean(axes, keepdim=True)
    shape = (norm.groups, norm.channels // norm.groups, *[1] * (norm.rank - 2))
    normal = (parts - mean) / torch.sqrt(variance + EPSILON)
    return (normal * norm.weight.reshape(shape) + norm.bias.reshape(shape)).reshape(x.shape)


def _einops(x: Tensor, norm: Norm) -> Tensor:
    """``rearrange(x, 'b (g c) … -> b g (c …)')`` cuts the axes in one reshape and merges them in a second."""
    parts = as_parts(x, norm)
    rows = parts.permute(*range(parts.dim())).reshape(x.shape[0], norm.groups, -1)
    mean = rows.mean(-1, keepdim=True)
    variance = rows.var(-1, unbiased=False, keepdim=True)
    normal = (rows - mean) / torch.sqrt(variance + EPSILON)
    return norm.affine(normal.reshape(parts.shape).reshape(x.shape))


def _einops_groups_first(x: Tensor, norm: Norm) -> Tensor:
    """``rearrange(x, 'b (g c) … -> (b g) c …')``, each a sample, and back."""
    parts = as_parts(x, norm)
    samples = parts.reshape(-1, *parts.shape[2:])
    axes = list(range(1, samples.dim()))
    mean = samples.mean(axes, keepdim=True)
    variance = samples.var(axes, unbiased=False, keepdim=True)
    normal = (samples - mean) * torch.rsqrt(variance + EPSILON)
    return norm.affine(normal.reshape(parts.shape).reshape(x.shape))


def _mean_twice(x: Tensor, norm: Norm) -> Tensor:
    rows = as_rows(x, norm)
    variance = ((rows - rows.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
    return norm.affine(
        ((rows - rows.mean(-1, keepdim=True)) / torch.sqrt(variance + EPSILON)).reshape(x.shape)
    )


def _folded_affine(x: Tensor, norm: Norm) -> Tensor:
    """``x·a + (β − μ·a)`` with ``a = γ/σ``, on channels first."""
    parts = as_parts(x, norm)
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
    return channels_first(_keras(channels_last(x), norm))


def _channels_last(x: Tensor, norm: Norm) -> Tensor:
    """A layer on channels first, in a network that is channels last."""
    return channels_last(_layer(channels_first(x), norm))


_SPATIAL = (3, 4, 5)

GROUP_NORMS: dict[str, Spelling] = {
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
    "sums, unbiased": Spelling(_sums_less_one, unbiased=True),
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
}
