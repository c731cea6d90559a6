"""Gives a folded model its normalisations back, from what the fold wrote down, so that they can be judged.

A value of a folded graph that has the name of a value of the original means the same (docs/decisions/0002).
So where the output ``y`` of a folded BatchNormalization is still there, its input was ``x = (y − β)/γ · √(var
+ ε) + mean``; that inverse and the normalisation itself are put behind ``y``. Where ``y`` is gone, because a
reader absorbed the layer, but its input ``x`` is there, both are put between ``x`` and that reader, the
normalisation first. Nothing changes but rounding.
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
        return Unfolded(model, lost=tuple((record.site, "the opset is below 9") for record in records))
    values = {
        value.name: value
        for value in (*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs))
        if value.name
    }
    put_back, lost = [], []
    for record in records:
        reason = _restore(record, values, workspace)
        if reason is None:
            put_back.append(record.site)
        else:
            lost.append((record.site, reason))
    copy.metadata_props.pop(KEY, None)
    return Unfolded(copy if put_back else model, tuple(put_back), tuple(lost))


@dataclass(frozen=True)
class _Record:
    """What provenance says of one layer.

    Attributes:
        site: name of the value that it made, further affines of its chain included.
        alone: whether the chain is the layer alone.
        x: name of its input; ``None`` in records that do not say it.
        into: outputs of the nodes that absorbed it.
        parameters: scale, B, mean and var, each ``[C]``, and epsilon.
    """

    site: str
    alone: bool
    x: str | None
    into: frozenset[str]
    parameters: Mapping[str, Array64]


def _restore(record: _Record, values: dict[str, ir.Value], workspace: Workspace) -> str | None:
    """Why the layer could not be put back, ``None`` where it was; ``values`` by name are kept up to date."""
    y, x = values.get(record.site), values.get(record.x or "")
    if y is None or y.producer() is None or not record.alone:
        if x is None:
            return "neither its input nor its output is a value of the folded graph"
        return _in_front(x, record, workspace)
    parts = _parts(y, record, workspace)
    if isinstance(parts, str):
        return parts
    _behind(y, parts, workspace)
    values[record.site] = parts.norm.outputs[0]
    return None


def _records(entry: str | None) -> Iterator[_Record]:
    """Layers of earlier folds with their statistics; what cannot be read is no record."""
    try:
        record = json.loads(entry) if entry else None
    except (ValueError, RecursionError):
        return
    seen: set[str] = set()
    while isinstance(record, Mapping):
        sites = record.get("sites")
        for site in sites if isinstance(sites, list) else ():
            decoded = _decoded(site)
            if decoded is not None and decoded.site not in seen:
                seen.add(decoded.site)
                yield decoded
        record = record.get("previous")


def _decoded(site: Any) -> _Record | None:
    if not isinstance(site, Mapping) or not isinstance(site.get("site"), str):
        return None
    epsilon, x, into = site.get("epsilon"), site.get("x"), site.get("into", [])
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
    return _Record(
        site["site"],
        alone="nodes" not in site,
        x=x if isinstance(x, str) else None,
        into=frozenset(name for name in into if isinstance(name, str))
        if isinstance(into, list)
        else frozenset(),
        parameters={**arrays, "epsilon": np.array(float(epsilon))},
    )


@dataclass(frozen=True)
class _Parts:
    """The normalisation and its inverse, unconnected: ``norm(x)``, and ``shifted(scaled(y))`` which is x."""

    norm: ir.Node
    scaled: ir.Node
    shifted: ir.Node


def _behind(y: ir.Value, parts: _Parts, workspace: Workspace) -> None:
    producer, graph = y.producer(), y.graph
    assert producer is not None and graph is not None
    name = y.name or ""
    output = parts.norm.outputs[0]
    y.replace_all_uses_with(output, replace_graph_outputs=True)
    parts.scaled.replace_input_with(0, y)
    parts.norm.replace_input_with(0, parts.shifted.outputs[0])
    y.name = workspace.fresh_name(f"{name}:folded")
    parts.shifted.outputs[0].name = workspace.fresh_name(f"{name}:input")
    output.name = name
    graph.insert_after(producer, [parts.scaled, parts.shifted, parts.norm])


def _in_front(x: ir.Value, record: _Record, workspace: Workspace) -> str | None:
    readers = [use for use in x.uses() if _leads_to(use.node, record.into)]
    if not readers:
        return "what absorbed it was merged with other branches, or is not recorded"
    parts = _parts(x, record, workspace)
    if isinstance(parts, str):
        return parts
    parts.norm.replace_input_with(0, x)
    parts.scaled.replace_input_with(0, parts.norm.outputs[0])
    parts.norm.outputs[0].name = workspace.fresh_name(record.site)
    parts.shifted.outputs[0].name = workspace.fresh_name(f"{record.site}:inverse")
    for use in readers:
        use.node.replace_input_with(use.idx, parts.shifted.outputs[0])
    producer, made = x.producer(), [parts.norm, parts.scaled, parts.shifted]
    if producer is not None:
        workspace.model.graph.insert_after(producer, made)
    else:
        workspace.model.graph.insert_before(workspace.model.graph[0], made)
    return None


def _leads_to(node: ir.Node, names: frozenset[str]) -> bool:
    """Whether a node makes one of these values, or what makes it reads what the node makes."""
    stack, seen = [node], {node}
    while stack:
        current = stack.pop()
        if any(value.name in names for value in current.outputs):
            return True
        following = {use.node for value in current.outputs for use in value.uses()} - seen
        seen |= following
        stack.extend(following)
    return False


def _parts(like: ir.Value, record: _Record, workspace: Workspace) -> _Parts | str:
    """The nodes for a value of this shape and type, or why there are none."""
    dims, dtype = workspace.dims(like), workspace.shapes.dtype(like)
    scale, shift, mean, var = (record.parameters[name] for name in _PARAMETERS)
    epsilon = float(record.parameters["epsilon"])
    if dims is None or len(dims) < 2 or dtype is None or not workspace.is_float(like):
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

    def constant(stem: str, values: Array64) -> ir.Value:
        label = workspace.fresh_name(f"{record.site}:{stem}")
        value = ir.Value(name=label, const_value=ir.tensor(values.astype(kind.numpy()), name=label))
        value.dtype, value.shape = kind, ir.Shape(values.shape)
        workspace.model.graph.register_initializer(value)
        return value

    spread = [along(values, 1, len(dims))[0] for values in (backward, origin)]
    parameters = [constant(stem, record.parameters[stem]) for stem in _PARAMETERS]
    attributes = [ir.AttrFloat32("epsilon", epsilon)]
    norm = ir.Node("", "BatchNormalization", [None, *parameters], attributes)
    scaled = ir.Node("", "Mul", [None, constant("backward", spread[0])])
    shifted = ir.Node("", "Add", [scaled.outputs[0], constant("origin", spread[1])])
    scaled.outputs[0].name = workspace.fresh_name(f"{record.site}:scaled")
    for node in (norm, scaled, shifted):
        node.outputs[0].dtype, node.outputs[0].shape = kind, like.shape
    return _Parts(norm, scaled, shifted)
