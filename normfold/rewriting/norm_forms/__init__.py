"""Give a normalisation another form: one emitter for each."""

from __future__ import annotations

from normfold.planning.norm_forms import Form
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm
from normfold.rewriting.norm_forms.builder import Builder, Emitted
from normfold.rewriting.norm_forms.contrib_group_norm import emit_contrib_group_norm
from normfold.rewriting.norm_forms.group_normalization import emit_group_normalization
from normfold.rewriting.norm_forms.instance_normalization import emit_instance_normalization
from normfold.rewriting.norm_forms.layer_normalization import (
    emit_layer_normalization,
    emit_over_channels,
)
from normfold.rewriting.norm_forms.primitive import emit_primitive

__all__ = ["Emitted", "substitute"]


def substitute(norm: Norm, form: Form, workspace: Workspace) -> Emitted:
    """Replace the nodes of ``norm``; ``norm.y`` keeps its name, and what led to it is gone."""
    if form == "ms-groupnorm":
        builder = Builder(norm, workspace)
        return builder.finish(emit_contrib_group_norm(builder))
    norm = norm.before_activation or norm
    builder = Builder(norm, workspace)
    if form == "native":
        result = emit_group_normalization(builder)
    elif norm.kind == "layernorm":
        result = emit_over_channels(builder)
    elif form == "layernorm":
        result = emit_layer_normalization(builder)
    elif form == "primitive":
        result = emit_primitive(builder)
    else:
        result = emit_instance_normalization(builder, as_batchnorm=form == "instancenorm-bn")
    if norm.activation == "silu":
        result = builder.silu(result)
    return builder.finish(builder.laid_out(result))
