"""A normalisation on its own, in any form: what trials run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from normfold.planning.norm_forms import Form, needed_opset
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm
from normfold.rewriting.norm_forms import substitute


def norm_alone(norm: Norm, form: Form, shape: Sequence[int], workspace: Workspace) -> ir.Model:
    """A model that computes one norm of a model, in a form that is valid there, from ``x`` to ``y``.

    Args:
        norm: of the model.
        form: the form.
        shape: sizes of x, the channels as axis 1.
        workspace: the model. The new one has its opset, or a later one that the form needs.
    """
    dtype = workspace.shapes.dtype(norm.x)
    assert dtype is not None
    x, y = (ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype)) for name in ("x", "y"))
    place = ir.Node("", "Identity", [x], outputs=[y])
    opset = max(workspace.opset, needed_opset(norm, form, workspace))
    graph = ir.Graph([x], [y], nodes=[place], opset_imports={"": opset}, name="norm")
    model = ir.Model(graph, ir_version=workspace.model.ir_version or _IR_VERSION)
    alone = replace(norm, x=x, y=y, channel_axis=1, nodes=(place,), before_activation=None)
    substitute(alone, form, Workspace(model))
    return model


_IR_VERSION = 8
