"""Writes the smallest pair of models that shows a difference, and the inputs that show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from normfold.errors import OutputError
from normfold.inputs.drawing import Arrays
from normfold.runtime.client import write_model
from normfold.verification.graph_index import GraphIndex
from normfold.verification.location.locate import Location
from normfold.verification.proof.regions import extract

README = """\
Two models that should compute the same from the same inputs, and do not:

    normfold verify original.onnx folded.onnx --data inputs.npz

original.onnx   the part of the original in front of the first difference
folded.onnx     the same part of the other model, its values renamed to those of the original
inputs.npz      what the original feeds into that part

{text}
"""


def save_failure(folder: Path, original: ir.Model, folded: ir.Model, inputs: Arrays, text: str) -> None:
    """Writes ``original.onnx``, ``folded.onnx``, ``inputs.npz`` and ``README.txt``.

    Args:
        folder: where to; made if it does not exist.
        original: part of the original; gets the shapes and types of ``inputs``.
        folded: part of the other model, likewise.
        inputs: arrays by input name; a model that does not read one gets an input that nothing reads.
        text: what is wrong, for the README.

    Raises:
        OutputError: NF920, the folder cannot be written.
    """
    for model in (original, folded):
        _declare_inputs(model, inputs)
        _declare_outputs(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(original, folder, "original")
        write_model(folded, folder, "folded")
        stored = {name: a.astype(str) if a.dtype.kind == "O" else a for name, a in inputs.items()}
        np.savez(folder / "inputs.npz", **stored)  # type: ignore[arg-type]
        (folder / "README.txt").write_text(README.format(text=text), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder}: the failing models cannot be saved: {reason}", code="NF920") from error


def _declare_inputs(model: ir.Model, inputs: Arrays) -> None:
    graph = model.graph
    known = {value.name: value for value in graph.inputs}
    graph.inputs.clear()
    for name, array in inputs.items():
        value = known.get(name) or ir.Value(name=name)
        value.type = ir.TensorType(_element_type(array))
        value.shape = ir.Shape(array.shape)
        graph.inputs.append(value)


def _declare_outputs(model: ir.Model) -> None:
    """Gives outputs that lack a type the inferred one; a valid model has one."""
    if all(value.type is not None for value in model.graph.outputs):
        return
    ShapeInferencePass(data_prop=True)(model)
    for value in model.graph.outputs:
        if value.type is None:
            value.type = next((known.type for known in model.graph.inputs), ir.TensorType(ir.DataType.FLOAT))


def _element_type(array: np.ndarray) -> ir.DataType:
    return ir.DataType.STRING if array.dtype.kind in "OUST" else ir.DataType.from_numpy(array.dtype)


def parts_at(location: Location) -> tuple[ir.Model, ir.Model]:
    """The two smallest models that compute the located value from values that agree; both with the first
    model's names."""
    first, second = location.indices
    models = []
    for side, index, nodes in ((0, first, location.nodes[0]), (1, second, location.nodes[1])):
        boundary = [index.keys[pair[side]] for pair in location.boundary]
        goal = index.keys[(location.first, location.second)[side]]
        models.append(extract(index, nodes, boundary, [goal]))
    names = {right.name or "": left.name or "" for left, right in location.boundary}
    names[location.second.name or ""] = location.first.name or ""
    _rename(models[1], {old: new for old, new in names.items() if old != new})
    return models[0], models[1]


def _rename(model: ir.Model, names: Mapping[str, str]) -> None:
    values = {name: value for (_, name), value in GraphIndex(model).values.items()}
    for new in names.values():
        if new in values and new not in names:
            values[new].name = _free(f"{new}~inner", values)
    renamed = [(values[old], new) for old, new in names.items() if old in values]
    for value, _ in renamed:
        value.name = _free(f"{value.name}~old", values)
    for value, new in renamed:
        value.name = new


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "~"
    return name
