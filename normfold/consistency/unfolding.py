"""Gives a folded model its normalisations back, from what the fold wrote down, so that they can be judged.

A value of a folded graph that has the name of a value of the original means the same (docs/decisions/0002).
So where the output ``y`` of a folded BatchNormalization is still there, its input was ``x = (y − β)/γ · √(var
+ ε) + mean``; that inverse and the normalisation itself are put behind ``y``, and nothing changes but
rounding.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64, along
from normfold.preparation.workspace import Workspace
from normfold.reporting.provenance import KEY

_LEAST_OPSET = 9
_PARAMETERS = ("scale", "B", "mean", "var")


@dataclass(frozen=True)
class Unfolded:
    """A model with its folded layers put back.

    Attributes:
        model: the model itself where nothing was put back.
        sites: output values of the layers that were put back.
        lost: output values of folded layers that could not be, with the reason.
    """

    model: ir.Model
    sites: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()


def unfold(model: ir.Model) -> Unfolded:
    """Puts back every BatchNormalization of the main graph that the model's provenance knows.

    Args:
        model: without local functions; is not changed.
    """
    records = list(_records(model.metadata_props.get(KEY)))
    if not records:
        return Unfolded(model)
    copy = model.clone()
    workspace = Workspace(copy)
    if workspace.opset < _LEAST_OPSET:
        return Unfolded(model, lost=tuple((site, "the opset is below 9") for site, _ in records))
    values = {value.name: value for node in copy.graph for value in node.outputs if value.name}
    put_back, lost = [], []
    for site, parameters in records:
        value = values.get(site)
        if value is None:
            lost.append((site, "its output is not a value of the folded graph"))
            continue
        reason = _put_back(value, parameters, workspace)
        if reason is None:
            put_back.append(site)
        else:
            lost.append((site, reason))
    copy.metadata_props.pop(KEY, None)
    return Unfolded(copy if put_back else model, tuple(put_back), tuple(lost))


def _records(entry: str | None) -> Iterator[tuple[str, dict[str, Array64]]]:
    """Sites of earlier folds with their statistics; what cannot be read is no record."""
    try:
        record = json.loads(entry) if entry else None
    except (ValueError, RecursionError):
        return
    seen: set[str] = set()
    while isinstance(record, Mapping):
        sites = record.get("sites")
        for site in sites if isinstance(sites, list) else ():
            decoded = _decoded(site)
            if decoded is not None and decoded[0] not in seen:
                seen.add(decoded[0])
                yield decoded
        record = record.get("previous")


def _decoded(site: Any) -> tuple[str, dict[str, Array64]] | None:
    if not isinstance(site, Mapping) or not isinstance(site.get("site"), str) or "nodes" in site:
        return None
    epsilon = site.get("epsilon")
    if not isinstance(epsilon, float | int):
        return None
    try:
        arrays = {
            name: np.frombuffer(base64.b64decode(site[name], validate=True), dtype="<f4").astype(np.float64)
            for name in _PARAMETERS
        }
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    if len({array.size for array in arrays.values()}) != 1:
        return None
    return site["site"], {**arrays, "epsilon": np.array(float(epsilon))}


def _put_back(y: ir.Value, parameters: Mapping[str, Array64], workspace: Workspace) -> str | None:
    """Why not, or ``None`` where it was done."""
    dims, dtype = workspace.dims(y), workspace.shapes.dtype(y)
    scale, shift, mean, var = (parameters[name] for name in _PARAMETERS)
    epsilon = float(parameters["epsilon"])
    if dims is None or len(dims) < 2 or dtype is None or not workspace.is_float(y):
        return "the rank or type of its output is not known"
    if isinstance(dims[1], int) and dims[1] != scale.size:
        return f"its output has {dims[1]} channels, the record {scale.size}"
    with np.errstate(all="ignore"):
        forward = scale / np.sqrt(var + epsilon)
        backward = 1.0 / forward
        origin = mean - shift * backward
    if not (np.isfinite(backward).all() and np.isfinite(origin).all()):
        return "γ is zero in some channels, so that the input cannot be told from the output"
    kind: ir.DataType = dtype
    producer, graph = y.producer(), y.graph
    assert producer is not None and graph is not None
    name, rank = y.name or "", len(dims)

    def constant(stem: str, values: Array64) -> ir.Value:
        label = workspace.fresh_name(f"{name}:{stem}")
        value = ir.Value(name=label, const_value=ir.tensor(values.astype(kind.numpy()), name=label))
        value.dtype, value.shape = kind, ir.Shape(values.shape)
        graph.register_initializer(value)
        return value

    spread = [along(values, 1, rank)[0] for values in (backward, origin)]
    scaled = ir.Node("", "Mul", [y, constant("backward", spread[0])])
    x = ir.Node("", "Add", [scaled.outputs[0], constant("origin", spread[1])])
    norm = ir.Node(
        "",
        "BatchNormalization",
        [x.outputs[0], *(constant(stem, parameters[stem]) for stem in _PARAMETERS)],
        [ir.AttrFloat32("epsilon", epsilon)],
    )
    output = norm.outputs[0]
    y.replace_all_uses_with(output, replace_graph_outputs=True)
    scaled.replace_input_with(0, y)
    for made in (scaled.outputs[0], x.outputs[0], output):
        made.dtype, made.shape = kind, y.shape
    y.name = workspace.fresh_name(f"{name}:folded")
    scaled.outputs[0].name = workspace.fresh_name(f"{name}:scaled")
    x.outputs[0].name = workspace.fresh_name(f"{name}:input")
    output.name = name
    graph.insert_after(producer, [scaled, x, norm])
    return None
