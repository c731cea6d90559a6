"""A graph under construction. Every decision is drawn, so hypothesis can shrink what it finds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

T = TypeVar("T")
Shape = tuple[int, ...]

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
LARGEST = 600
"""Elements of a value: whatever grows further stops growing."""

_TYPE_STRINGS = {
    TensorProto.FLOAT: "tensor(float)",
    TensorProto.DOUBLE: "tensor(double)",
    TensorProto.FLOAT16: "tensor(float16)",
    TensorProto.BFLOAT16: "tensor(bfloat16)",
    TensorProto.INT64: "tensor(int64)",
    TensorProto.BOOL: "tensor(bool)",
}


class Impossible(Exception):
    """A step does not fit the value, the type or the opset that was drawn for it."""


def require(condition: bool) -> None:
    if not condition:
        raise Impossible


@dataclass(frozen=True)
class Value:
    """A value as it is when the model runs with the sizes it was drawn with."""

    name: str
    shape: Shape
    dtype: int = TensorProto.FLOAT

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS


@functools.cache
def _allowed(op_type: str, opset: int, index: int, *, output: bool = False) -> frozenset[str] | None:
    """The types that an operand (or an output) may have; ``None`` where the operator has no such one."""
    schema = onnx.defs.get_schema(op_type, opset)
    formal = schema.outputs if output else schema.inputs
    if not formal:
        return None
    own = formal[min(index, len(formal) - 1)]
    for constraint in schema.type_constraints:
        if constraint.type_param_str == own.type_str:
            return frozenset(constraint.allowed_type_strs)
    return frozenset([own.type_str])


@functools.cache
def _exists(op_type: str, opset: int) -> bool:
    return onnx.defs.has(op_type, opset) and not onnx.defs.get_schema(op_type, opset).deprecated


@functools.cache
def _takes_nothing(op_type: str, opset: int, index: int) -> bool:
    """Whether an operand is there and may be left out."""
    formal = onnx.defs.get_schema(op_type, opset).inputs
    return index < len(formal) and formal[index].option == onnx.defs.OpSchema.FormalParameterOption.Optional


def _tensor(array: np.ndarray, dtype: int, name: str) -> onnx.TensorProto:
    stored = np.ascontiguousarray(array).astype(helper.tensor_dtype_to_np_dtype(dtype))
    return helper.make_tensor(name, dtype, array.shape, stored.tobytes(), raw=True)


def value_info(value: Value) -> onnx.ValueInfoProto:
    """The value's name, type and rank."""
    return helper.make_tensor_value_info(value.name, value.dtype, [None] * value.rank)


@dataclass
class Names:
    """Names of one model: unique in it, in the style that was drawn."""

    style: str
    taken: set[str] = field(default_factory=set)

    def new(self, stem: str) -> str:
        number = len(self.taken)
        name = {
            "plain": f"v{number}",
            "torch": f"/features/features.{number}/{stem}_output_0",
            "odd": f"値 {number}·{stem}",
            "digits": str(number),
            # What normfold itself would call a changed value, a merge, or a left-over.
            "colliding": ("v0", "v0_folded", "v0_affine", "v0_merged", "v0_merged_weight", "v0_folded_1")[
                number % 6
            ]
            + ("" if number < 6 else f"_{number // 6}"),
        }[self.style]
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


class Draft:
    """One graph: the model's, or the body of a control flow operator (``parent`` is where it stands)."""

    def __init__(
        self,
        draw: Callable[[st.SearchStrategy[Any]], Any],
        *,
        opset: int,
        dtype: int,
        names: Names,
        rng: np.random.Generator,
        initializers_are_inputs: bool = False,
        overridable_constants: bool = False,
        parent: Draft | None = None,
    ) -> None:
        self.draw, self.opset, self.dtype, self.names, self.rng = draw, opset, dtype, names, rng
        self.initializers_are_inputs = initializers_are_inputs
        self.overridable_constants = overridable_constants
        self.parent = parent
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.overridable: list[str] = []
        self.functions: list[onnx.FunctionProto] = []
        self.values: list[Value] = []
        self._constants: dict[tuple[Shape, int], str] = {}

    # Decisions: the first choice is the one that hypothesis shrinks to.

    def choose(self, *options: T) -> T:
        require(bool(options))
        return options[0] if len(options) == 1 else self.draw(st.sampled_from(options))

    def integer(self, low: int, high: int) -> int:
        return low if low >= high else self.draw(st.integers(low, high))

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    # A step that turns out to be impossible leaves nothing behind.

    def mark(self) -> tuple[int, ...]:
        parts = (self.nodes, self.initializers, self.values, self.functions, self.inputs)
        return tuple(len(part) for part in parts)

    def restore(self, mark: tuple[int, ...]) -> None:
        nodes, initializers, values, functions, inputs = mark
        del self.nodes[nodes:], self.values[values:], self.functions[functions:], self.inputs[inputs:]
        self.initializers = dict(list(self.initializers.items())[:initializers])
        self.overridable = [name for name in self.overridable if name in self.initializers]
        known = {*self.initializers, *(name for node in self.nodes for name in node.output)}
        self._constants = {key: name for key, name in self._constants.items() if name in known}

    # Values

    def input(self, shape: Shape, symbols: Sequence[str | None], dtype: int | None = None) -> Value:
        value = Value(self.names.new("input"), shape, self.dtype if dtype is None else dtype)
        dims = [n if s is None else s for n, s in zip(shape, symbols, strict=True)]
        self.inputs.append(helper.make_tensor_value_info(value.name, value.dtype, dims))
        self.values.append(value)
        return value

    def emit(
        self,
        op_type: str,
        operands: Sequence[Value | str],
        *shapes: Shape,
        dtype: int | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Value:
        """Adds a node and returns its first output; all of them are in ``values``."""
        return self.emit_all(op_type, operands, shapes, dtype=dtype, domain=domain, **attributes)[0]

    def emit_all(
        self,
        op_type: str,
        operands: Sequence[Value | str],
        shapes: Sequence[Shape | None],
        *,
        dtype: int | None = None,
        dtypes: Sequence[int] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Likewise, with several outputs (``None`` has no name), of one type or of ``dtypes``."""
        require(all(shape is None or (0 < math.prod(shape) <= LARGEST) for shape in shapes))
        first = operands[0] if operands else None
        made_of = first.dtype if isinstance(first, Value) else self.dtype
        dtype = made_of if dtype is None else dtype
        if not domain:
            self._check(op_type, operands, dtype)
        outputs = [
            None if s is None else Value(self.names.new(op_type), s, own)
            for s, own in zip(shapes, dtypes or [dtype] * len(shapes), strict=True)
        ]
        if not domain and self.chance(30) and _takes_nothing(op_type, self.opset, len(operands)):
            operands = [*operands, ""]
        node = helper.make_node(
            op_type,
            [o.name if isinstance(o, Value) else o for o in operands],
            [o.name if o is not None else "" for o in outputs],
            name=self.choose(f"{op_type}_{len(self.names.taken)}", ""),
            domain=domain,
            **{name: value for name, value in attributes.items() if value is not None},
        )
        self.nodes.append(node)
        made = [o for o in outputs if o is not None]
        self.values.extend(made)
        return made

    def _check(self, op_type: str, operands: Sequence[Value | str], dtype: int) -> None:
        """Whether the opset has the operator, for these types."""
        require(_exists(op_type, self.opset))
        if dtype in _TYPE_STRINGS:
            allowed = _allowed(op_type, self.opset, 0, output=True)
            require(allowed is not None and _TYPE_STRINGS[dtype] in allowed)
        for index, operand in enumerate(operands):
            if isinstance(operand, Value) and operand.dtype in _TYPE_STRINGS:
                allowed = _allowed(op_type, self.opset, index)
                require(allowed is not None and _TYPE_STRINGS[operand.dtype] in allowed)

    # Constants

    def floats(self, shape: Shape, *, dtype: int | None = None, content: str | None = None) -> Value:
        """A floating constant; like trained weights mostly, and in the ways that trained weights are not."""
        content = content or self.choose(
            "mixed", "positive", "mixed", "positive", "negative", "uniform", "with zero", "ones", "mixed"
        )
        array = self.rng.uniform(0.5, 1.5, shape)
        if content == "mixed":
            array = array * self.rng.choice([-1.0, 1.0], shape)
        elif content == "negative":
            array = -array
        elif content == "uniform":
            array = np.full(shape, float(self.rng.uniform(-1.5, 1.5)))
        elif content == "with zero" and array.size:
            array.reshape(-1)[int(self.rng.integers(array.size))] = 0.0
        elif content in ("ones", "zeros"):
            array = np.full(shape, 1.0 if content == "ones" else 0.0)
        return self.constant(array, self.dtype if dtype is None else dtype)

    def integers(self, *values: int) -> Value:
        return self.constant(np.array(values, np.int64), TensorProto.INT64)

    def constant(self, array: np.ndarray, dtype: int, *, plain: bool = False) -> Value:
        """A constant in one of the ways in which models hold one."""
        array = np.asarray(array)
        ways = ["initializer"] * 6 + ["shared", "node", "expression", "outer"]
        if dtype in FLOATS and self.overridable_constants and array.ndim:
            ways.append("overridable")
        way = "node" if plain or (self.initializers_are_inputs and self.parent) else self.choose(*ways)
        # Before opset 9 Constant makes floating values only.
        if dtype not in FLOATS and (way in ("expression", "shared") or self.opset < 9):
            way = "initializer"
        key = (array.shape, dtype)
        if way == "shared" and key in self._constants:
            return Value(self._constants[key], array.shape, dtype)
        owner = self
        while way == "outer" and owner.parent is not None:
            owner = owner.parent
        name = self.names.new("weight")
        if way == "node":
            self.nodes.append(helper.make_node("Constant", [], [name], value=_tensor(array, dtype, name)))
        elif way == "expression" and array.size:
            self._expression(array, name, dtype)
        else:
            owner.initializers[name] = _tensor(array, dtype, name)
            if way == "overridable":
                self.overridable.append(name)
        if dtype in FLOATS:
            self._constants[key] = name
        return Value(name, array.shape, dtype)

    def _expression(self, array: np.ndarray, name: str, dtype: int) -> None:
        """The constant as what a node makes of another one."""
        source = self.names.new("source")
        matrix = ["Transpose", "centred"] if array.ndim > 1 else []
        kind = self.choose("Identity", *matrix, "Cast", "Reshape")
        if kind == "centred":
            mean = self.names.new("mean")
            axes = {"axes": [1]} if self.opset < 18 else {}
            operands = (
                [source]
                if axes
                else [source, self.constant(np.array([1]), TensorProto.INT64, plain=True).name]
            )
            self.nodes.append(helper.make_node("ReduceMean", operands, [mean], **axes))
            self.nodes.append(helper.make_node("Sub", [source, mean], [name]))
        elif kind == "Transpose":
            order = [1, 0, *range(2, array.ndim)]
            self.nodes.append(helper.make_node("Transpose", [source], [name], perm=order))
            array = array.transpose(order)
        elif kind == "Reshape":
            target = self.constant(np.array(array.shape, np.int64), TensorProto.INT64, plain=True)
            self.nodes.append(helper.make_node("Reshape", [source, target.name], [name]))
            array = array.reshape(-1)
        elif kind == "Cast":
            self.nodes.append(helper.make_node("Cast", [source], [name], to=dtype))
        else:
            self.nodes.append(helper.make_node("Identity", [source], [name]))
        self.initializers[source] = _tensor(array, dtype, source)

    # Bodies of control flow

    def body(self) -> Draft:
        return Draft(
            self.draw,
            opset=self.opset,
            dtype=self.dtype,
            names=self.names,
            rng=self.rng,
            initializers_are_inputs=self.initializers_are_inputs,
            parent=self,
        )

    def graph(self, name: str, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
        inputs = list(self.inputs)
        for tensor in self.initializers.values():
            if tensor.name in self.overridable or (self.initializers_are_inputs and self.parent is None):
                inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return helper.make_graph(
            self.nodes, name, inputs, list(outputs), initializer=list(self.initializers.values())
        )
