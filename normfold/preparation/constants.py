"""Constants of a graph: initializers, Constant nodes and expressions of them, in float64.

A constant that a fold edits is a ``Constant64``: a recipe that yields the float64 values when asked, and
is rounded to the tensor's own type once, when the model is written. However many folds a weight takes part
in, it is rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.evaluation import NotCovered, evaluate_node
from normfold.preparation.shapes import Dims

FLOAT_TYPES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})

_KEPT_IN_MEMORY = 1 << 16
_LARGEST_EXPRESSION = 1 << 28

# Folding a weight through its DequantizeLinear would undo the quantisation that the user asked for.
_NEVER_CONSTANT = frozenset(
    {
        "DequantizeLinear",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "If",
        "Loop",
        "Scan",
        "SequenceMap",
    }
)
# Small differences of float64 from the model's own type may not flip these.
_DISCONTINUOUS = frozenset({"Floor", "Ceil", "Round", "Sign", "Mod", "BitCast"})


@dataclass(frozen=True)
class Constant64:
    """A constant tensor in float64, computed when asked.

    Attributes:
        shape: dimensions of the tensor.
        dtype: the type that it is rounded to in the end.
        compute: yields the float64 values, shape ``shape``.
    """

    shape: tuple[int, ...]
    dtype: ir.DataType
    compute: Callable[[], Array64]

    @classmethod
    def of(cls, values: Array64, dtype: ir.DataType) -> Constant64:
        array = np.asarray(values, dtype=np.float64, order="C")
        return cls(array.shape, dtype, lambda: array)

    def map(self, function: Callable[[Array64], Array64], shape: tuple[int, ...] | None = None) -> Constant64:
        """The constant that ``function`` makes of it, evaluated late unless small."""
        if math.prod(self.shape) <= _KEPT_IN_MEMORY:
            return Constant64.of(function(self.compute()), self.dtype)
        compute = self.compute
        return Constant64(self.shape if shape is None else shape, self.dtype, lambda: function(compute()))

    def rounded(self) -> np.ndarray[Any, Any]:
        return round_once(self.compute(), self.dtype)


def round_once(values: Array64, dtype: ir.DataType) -> np.ndarray[Any, Any]:
    """Round float64 to ``dtype``, to nearest even, with a single rounding."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype != ir.DataType.BFLOAT16:
            return values.astype(dtype.numpy())
        # ml_dtypes goes through float32; rounding to odd on the way there keeps that step harmless.
        single = values.astype(np.float32)
        bits = single.view(np.uint32)
        away = np.abs(single.astype(np.float64)) > np.abs(values)
        inexact = (single.astype(np.float64) != values) & np.isfinite(single)
        bits = np.where(inexact, (bits - away.astype(np.uint32)) | np.uint32(1), bits).astype(np.uint32)
        return bits.view(np.float32).astype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class _Step:
    """One value of a constant expression; ``node`` is ``None`` for an initializer."""

    value: ir.Value
    node: ir.Node | None
    inputs: tuple[ir.Value | None, ...]


class Constants:
    """Answers "is this value constant, and what is it?" for one working model.

    Args:
        overridable: values that a caller of the model may replace, so never constant.
        opsets: operator set versions by domain.
        dtype_of: the element type of a value, where known.
        dims_of: its dimensions, where known: the Shape of a value with static dimensions is a constant.
    """

    def __init__(
        self,
        overridable: frozenset[ir.Value],
        opsets: dict[str, int],
        dtype_of: Callable[[ir.Value], ir.DataType | None],
        dims_of: Callable[[ir.Value], Dims | None],
    ) -> None:
        self._overridable = overridable
        self._opsets = opsets
        self._types = dtype_of
        self._dims = dims_of
        self._exact: dict[ir.Value, Constant64] = {}
        self._known: dict[ir.Value, bool] = {}
        self._cache: dict[tuple[ir.Value, bool], np.ndarray[Any, Any]] = {}

    def dtype_of(self, value: ir.Value | None) -> ir.DataType:
        """Element type of a value, float32 where nothing says otherwise."""
        known = None if value is None else self._types(value)
        return ir.DataType.FLOAT if known is None else known

    def define(self, value: ir.Value, constant: Constant64) -> None:
        """Record the float64 recipe behind a new initializer."""
        self._exact[value] = constant

    def forget(self) -> None:
        """Decide anew what is constant: more has become known of the model."""
        self._known.clear()

    @property
    def exact(self) -> dict[ir.Value, Constant64]:
        return self._exact

    def is_overridable(self, value: ir.Value) -> bool:
        return value in self._overridable

    def is_constant(self, value: ir.Value | None) -> bool:
        if value is None or value in self._overridable:
            return False
        if value in self._exact or (value.is_initializer() and value.const_value is not None):
            return True
        known = self._known.get(value)
        if known is None:
            known = self._decide(value)
        return known

    def _decide(self, value: ir.Value) -> bool:
        """Depth-first over the expression, without recursion: expressions may be deep."""
        stack = [value]
        while stack:
            current = stack[-1]
            if current in self._known:
                stack.pop()
                continue
            node = current.producer()
            if node is None or not _is_foldable(node):
                self._known[current] = self._is_leaf(current)
                stack.pop()
                continue
            inputs = [v for v in node.inputs if v is not None and not self._is_leaf(v)]
            pending = [v for v in inputs if v not in self._known]
            if pending:
                stack.extend(pending)
                continue
            self._known[current] = all(self._known[v] for v in inputs)
            stack.pop()
        return self._known[value]

    def _is_leaf(self, value: ir.Value) -> bool:
        return value not in self._overridable and (
            value in self._exact
            or (value.is_initializer() and value.const_value is not None)
            or self._static_shape(value) is not None
        )

    def _static_shape(self, value: ir.Value) -> np.ndarray[Any, Any] | None:
        """What Shape says of a value whose dimensions are all static."""
        node = value.producer()
        if node is None or node.op_type != "Shape" or node.domain not in ("", "ai.onnx"):
            return None
        source = node.inputs[0]
        dims = None if source is None else self._dims(source)
        if dims is None or not all(isinstance(dim, int) for dim in dims):
            return None
        end = node.attributes.get_int("end", len(dims))
        return np.array(dims[node.attributes.get_int("start", 0) : end], dtype=np.int64)

    def array(self, value: ir.Value | None, *, native: bool = False) -> np.ndarray[Any, Any] | None:
        """The value of a constant: float64 for floating types, the model's own type otherwise.

        ``native`` computes in the model's own types throughout, as a runtime would.
        Returns ``None`` where the value is not constant or cannot be evaluated.
        """
        if value is None or not self.is_constant(value):
            return None
        try:
            return self._evaluate(value, native)
        except (NotCovered, MemoryError):
            return None

    def _evaluate(self, value: ir.Value, native: bool) -> np.ndarray[Any, Any]:
        return self._run(self._steps(value), native)

    def _steps(self, value: ir.Value) -> list[_Step]:
        """The expression behind a value, operands first. It outlives the graph's own nodes, which a fold
        may remove."""
        steps: list[_Step] = []
        stack = [value]
        seen: set[ir.Value] = set()
        while stack:
            current = stack[-1]
            node = None if self._is_leaf(current) else current.producer()
            pending = [] if node is None else [v for v in node.inputs if v is not None and v not in seen]
            if pending and current not in seen:
                stack.extend(pending)
                continue
            stack.pop()
            if current not in seen:
                seen.add(current)
                steps.append(_Step(current, node, () if node is None else tuple(node.inputs)))
        return steps

    def _run(self, steps: list[_Step], native: bool) -> np.ndarray[Any, Any]:
        results: dict[ir.Value, np.ndarray[Any, Any]] = {}
        natives: dict[ir.Value, np.ndarray[Any, Any]] = {}
        for step in steps:
            value = step.value
            if not native and self._needs_native(step):
                if not natives:
                    natives = self._run_native(steps)
                results[value] = _as_double(natives[value])
            else:
                results[value] = self._run_one(step, results, native)
        return results[steps[-1].value]

    def _run_native(self, steps: list[_Step]) -> dict[ir.Value, np.ndarray[Any, Any]]:
        results: dict[ir.Value, np.ndarray[Any, Any]] = {}
        for step in steps:
            results[step.value] = self._run_one(step, results, True)
        return results

    def _needs_native(self, step: _Step) -> bool:
        return step.node is not None and (
            step.node.op_type in _DISCONTINUOUS or not self._is_floating(step.value)
        )

    def _run_one(
        self, step: _Step, known: dict[ir.Value, np.ndarray[Any, Any]], native: bool
    ) -> np.ndarray[Any, Any]:
        key = (step.value, native)
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        if step.node is None:
            return self._leaf(step.value, native)
        inputs = [None if v is None else known[v] for v in step.inputs]
        _guard_size(step.node, inputs)
        outputs = evaluate_node(step.node, inputs, self._opsets, precision="native" if native else "float64")
        index = step.value.index()
        assert index is not None
        result = np.asarray(outputs[index])
        if result.size <= _KEPT_IN_MEMORY:
            self._cache[key] = result
        return result

    def _is_floating(self, value: ir.Value) -> bool:
        return self.dtype_of(value) in FLOAT_TYPES

    def _leaf(self, value: ir.Value, native: bool) -> np.ndarray[Any, Any]:
        exact = self._exact.get(value)
        if exact is not None:
            return exact.rounded() if native else exact.compute()
        shape = self._static_shape(value)
        if shape is not None:
            return shape
        tensor = value.const_value
        assert tensor is not None
        array = tensor.numpy()
        if not native and tensor.dtype in FLOAT_TYPES:
            return array.astype(np.float64)
        return array

    def recipe(self, value: ir.Value | None) -> Constant64 | None:
        """The constant as a recipe, if it is a floating constant; nothing large is evaluated."""
        if value is None or not self.is_constant(value):
            return None
        exact = self._exact.get(value)
        if exact is not None:
            return exact
        tensor = value.const_value if value.is_initializer() else None
        if tensor is not None:
            if tensor.dtype not in FLOAT_TYPES:
                return None
            dims = tuple(tensor.shape.numpy())
            return Constant64(dims, tensor.dtype, lambda: tensor.numpy().astype(np.float64))
        dtype = self.dtype_of(value)
        if dtype not in FLOAT_TYPES:
            return None
        array = self.array(value)
        if array is None or array.dtype != np.float64:
            return None
        dims = array.shape
        if array.size <= _KEPT_IN_MEMORY:
            return Constant64.of(array, dtype)
        steps = self._steps(value)
        return Constant64(dims, dtype, lambda: self._run(steps, False))


def _as_double(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Floating arrays as float64, others as they are."""
    if array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16:
        return array.astype(np.float64)
    return array


def _is_foldable(node: ir.Node) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and node.op_type not in _NEVER_CONSTANT
        and not any(
            attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attr in node.attributes.values()
        )
        and not _is_active_dropout(node)
    )


def _is_active_dropout(node: ir.Node) -> bool:
    return node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None


def _guard_size(node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> None:
    """A few bytes of ConstantOfShape or Expand can ask for terabytes."""
    if node.op_type == "ConstantOfShape" and inputs[0] is not None:
        size = math.prod(int(d) for d in inputs[0])
    elif node.op_type == "Expand" and inputs[0] is not None and inputs[1] is not None:
        size = max(math.prod(int(d) for d in inputs[1]), 1) * inputs[0].size
    elif node.op_type == "Tile" and inputs[0] is not None and inputs[1] is not None:
        size = inputs[0].size * math.prod(int(d) for d in inputs[1])
    else:
        return
    if size > _LARGEST_EXPRESSION:
        raise NotCovered(node.op_type, node.domain, f"{size} elements")
