"""How steps follow each other: mostly a layer, what an affine has to cross, and an affine, or the reverse."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from normfold.folding.ledger import rule_of
from normfold.options import FoldOptions
from normfold.planning.norm_forms import FORMS
from normfold.planning.operators import TABLE
from tests.fuzz.draft import Draft, Impossible, Names, Shape, Value, value_info
from tests.fuzz.steps import AFFINES, CROSSED, LINEAR, RARE, SPELLED, STRUCTURE, Step

OPSETS = (18, 20, 17, 13, 21, 15, 11, 9, 12, 14, 16, 19, 22, 23, 10, 8, 7, 24, 25, 26)
_IR_VERSION = 8
_IR_VERSION_OF_NEW_OPSETS = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}
_SYMBOLS = ("N", "L", "H", "W", None)
_RULES = ("conv", "branches", *sorted(rule_of(op_type) for op_type in TABLE))


@dataclass(frozen=True)
class Case:
    """A model, what it is folded with, and the sizes of its symbols that it was drawn with."""

    model: onnx.ModelProto
    options: FoldOptions
    sizes: dict[str, int]

    def saved(self) -> onnx.ModelProto:
        """The model with the rest in its doc string: one file holds a case."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        options = {name: value for name, value in asdict(self.options).items() if value}
        said = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in options.items()}
        model.doc_string = json.dumps({"options": said, "sizes": self.sizes}, sort_keys=True)
        return model

    @classmethod
    def loaded(cls, model: onnx.ModelProto) -> Case:
        said = json.loads(model.doc_string)
        options = {k: frozenset(v) if isinstance(v, list) else v for k, v in said["options"].items()}
        return cls(model, FoldOptions(**options), said["sizes"])


@st.composite
def cases(draw: Any) -> Case:
    """Random valid models."""
    opset = draw(st.sampled_from(OPSETS))
    float32, double = TensorProto.FLOAT, TensorProto.DOUBLE
    types = [float32] * 6 + [double, TensorProto.FLOAT16]
    if opset >= 13:
        types.append(TensorProto.BFLOAT16)
    # Before IR version 4 every initializer is a graph input too.
    old = opset <= 8 and draw(st.booleans())
    names = Names(draw(st.sampled_from(("plain", "plain", "torch", "odd", "digits", "colliding"))))
    d = Draft(
        draw,
        opset=opset,
        dtype=draw(st.sampled_from(types)),
        names=names,
        rng=np.random.default_rng(draw(st.integers(0, 2**20))),
        initializers_are_inputs=old,
        overridable_constants=draw(st.integers(0, 9)) == 9,
    )
    sizes = _inputs(d)
    _grow(d)
    return Case(_model(d, old), _options(d), sizes)


def _inputs(d: Draft) -> dict[str, int]:
    """One input, sometimes two of one shape, with some symbolic axes."""
    shape: Shape = d.choose(
        (2, 4, 4, 4),
        (1, 4, 6, 6),
        (2, 4, 5),
        (2, 4),
        (1, 3, 4),
        (2, 2, 3, 4, 4),
        (2, 6, 1, 4),
        (4, 4, 4),
        (3, 4, 3, 5),
        (1, 4),
    )
    symbols: list[str | None] = [None] * len(shape)
    sizes: dict[str, int] = {}
    if d.chance(2):
        for axis, size in enumerate(shape):
            name = d.choose("N", None) if axis == 0 else d.choose(None, None, *_SYMBOLS[1:4])
            if name is not None and sizes.setdefault(name, size) == size:
                symbols[axis] = name
    for _ in range(d.choose(1, 1, 1, 2)):
        d.input(shape, symbols)
    return sizes


def _grow(d: Draft) -> None:
    cursor = d.values[0]
    for _ in range(d.integer(1, 3)):
        for family in _motif(d):
            cursor = _one_of(d, family, cursor)
        if d.chance(6):
            cursor = d.choose(*[v for v in d.values[-8:] if v.is_float])
    if not d.nodes:
        attempt(d, AFFINES[1], cursor)


def _motif(d: Draft) -> list[tuple[Step, ...]]:
    """Families of steps in a row."""
    kind = d.choose(
        "backward",
        "forward",
        "both",
        "structure",
        "any",
        "backward",
        "forward",
        "backward",
        "rare",
        "spelled",
    )
    crossed = [CROSSED] * d.choose(1, 0, 1, 0, 2)
    if kind == "backward":
        return [LINEAR, *crossed, AFFINES]
    if kind == "forward":
        return [AFFINES, *crossed, LINEAR]
    if kind == "both":
        return [LINEAR, *crossed[:1], AFFINES, *crossed[1:], LINEAR]
    if kind == "rare":
        return [RARE]
    if kind == "spelled":
        return [*crossed[:1], SPELLED, *crossed[1:], d.choose(AFFINES, LINEAR, CROSSED)]
    if kind == "structure":
        return [*crossed[:1], STRUCTURE, AFFINES]
    return [*crossed, d.choose(AFFINES, STRUCTURE, LINEAR), CROSSED]


def _one_of(d: Draft, family: tuple[Step, ...], cursor: Value) -> Value:
    """The first possible step of a family, from a drawn one on."""
    first = d.integer(0, len(family) - 1)
    for step in (*family[first:], *family[:first]):
        before = len(d.nodes)
        result = attempt(d, step, cursor)
        if len(d.nodes) > before:
            return result
    return cursor


def attempt(d: Draft, step: Step, cursor: Value) -> Value:
    """The step's result, or the cursor and an untouched draft where the step is impossible."""
    before = d.mark()
    try:
        return step(d, cursor)
    except Impossible:
        d.restore(before)
        return cursor


def _options(d: Draft) -> FoldOptions:
    return FoldOptions(
        target=d.choose(None, "ort-cpu", "ort-cpu", "portable", "tensorrt", "ort-cuda", "openvino"),
        groupnorm=d.choose(*FORMS, "keep") if d.chance(20) else None,
        fold_norm_affine=d.chance(8),
        freeze_initializers=d.chance(10),
        keep=frozenset([d.choose(*(v.name for v in d.values))]) if d.chance(15) else frozenset(),
        skip=frozenset([d.choose(*_RULES)]) if d.chance(15) else frozenset(),
    )


def _model(d: Draft, old: bool) -> onnx.ModelProto:
    read = {name for node in d.nodes for name in _reads(node)}
    made = {name for node in d.nodes for name in node.output}
    ends = [v for v in d.values if v.name in made and v.name not in read]
    outputs = [v for v in ends if v is ends[-1] or not d.chance(8)]
    inner = [v for v in d.values if v.name in made and v.name in read]
    for _ in range(d.choose(0, 0, 0, 0, 0, 0, 1, 2)):
        if inner:
            outputs.append(inner.pop(d.integer(0, len(inner) - 1)))
    if d.initializers and not old and d.chance(40):
        tensor = d.choose(*d.initializers.values())
        outputs.append(Value(tensor.name, tuple(tensor.dims), tensor.data_type))
    graph = d.graph("fuzz", [value_info(v) for v in outputs])
    opsets = [helper.make_opsetid("", d.opset)]
    if d.functions:
        opsets.append(helper.make_opsetid("local", 1))
    model = helper.make_model(graph, opset_imports=opsets, functions=d.functions, producer_name="tests.fuzz")
    model.ir_version = 3 if old else _IR_VERSION_OF_NEW_OPSETS.get(d.opset, _IR_VERSION)
    return _with_output_shapes(model)


def _reads(node: onnx.NodeProto) -> list[str]:
    found = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                found += _reads(inner)
            found += [output.name for output in graph.output]
    return found


def _with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Outputs with the shapes that follow from the model."""
    # An input with a default may be an output: it is declared twice, and alike.
    known = {value.name: value for value in model.graph.input}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for own, found in zip(model.graph.output, inferred.graph.output, strict=True):
        own.CopyFrom(known.get(own.name, found))
        for dim in own.type.tensor_type.shape.dim:
            # Names that onnx makes up mean nothing.
            if dim.dim_param.startswith("unk__"):
                dim.Clear()
    return model
