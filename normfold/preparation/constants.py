"""What is constant in a graph (initializers, Constant nodes, expressions of them), and its value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from normfold.evaluation import NotCovered, evaluate_node
from normfold.preparation.bounds import elements
from normfold.preparation.constant64 import FLOAT_TYPES, KEPT_IN_FLOAT64, Constant64
from normfold.preparation.shapes import Dims

# Elements: of one result that is kept, and of all that are.
_KEPT_IN_MEMORY = 1 << 16
_MOST_CACHED = 1 << 22
_SMALL_LEAF = 1 << 12
# Elements of a result: always allowed, times those of its leaves, never allowed beyond.
_SMALL_EXPRESSION = 1 << 22
_MOST_GROWTH = 4
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


_Key = tuple[ir.Value, bool]
"""A value, and whether it is computed in the model's own types."""


@dataclass(frozen=True)
class _Task:
    """One step of an expression, its operands first.

    Attributes:
        key: what it yields.
        node: what computes it; ``None`` for a leaf, and for a value that is converted from its native one.
        operands: what it reads.
        kept: the result, where it is there already.
    """

    key: _Key
    node: ir.Node | None
    operands: tuple[_Key | None, ...]
    kept: np.ndarray[Any, Any] | None = None


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
        self._cache: dict[_Key, np.ndarray[Any, Any]] = {}
        self._cached = 0

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
        if value in self._exact or _stored(value) is not None:
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
            inputs = [v for v in self.operands(node) if v is not None and not self._is_leaf(v)]
            pending = [v for v in inputs if v not in self._known]
            if pending:
                stack.extend(pending)
                continue
            self._known[current] = all(self._known[v] for v in inputs)
            stack.pop()
        return self._known[value]

    def operands(self, node: ir.Node) -> tuple[ir.Value | None, ...]:
        """Inputs of a node whose values its result depends on; ``None`` in the place of the others.

        Static dimensions are known without the value that has them, nor does CastLike read its second operand
        where the type is known.
        """
        if node.domain in ("", "ai.onnx"):
            if self._static_shape(node.outputs[0]) is not None:
                return (None,) * len(node.inputs)
            if node.op_type == "CastLike" and node.inputs[1] is not None and self._types(node.inputs[1]):
                return (node.inputs[0], None)
        return tuple(node.inputs)

    def _is_leaf(self, value: ir.Value) -> bool:
        return value not in self._overridable and (
            value in self._exact or _stored(value) is not None or self._static_shape(value) is not None
        )

    def _static_shape(self, value: ir.Value) -> np.ndarray[Any, Any] | None:
        """What Shape says of static dimensions, or what a Gather or Slice takes of it if they are."""
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape":
            sizes = self._shape_of(node)
            return None if sizes is None or None in sizes else np.array(sizes, dtype=np.int64)
        maker = None if node.op_type not in ("Gather", "Slice") or not node.inputs else _maker(node.inputs[0])
        if maker is None or maker.op_type != "Shape" or maker.domain not in ("", "ai.onnx"):
            return None
        sizes = self._shape_of(maker)
        picked = None if sizes is None else self._picked(node, np.array(sizes, dtype=object))
        return None if picked is None or None in picked.flat else picked.astype(np.int64)

    def _picked(self, node: ir.Node, sizes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        """What a Gather or Slice with constant operands takes of a vector."""
        if not all(self.is_constant(value) for value in node.inputs[1:] if value is not None):
            return None
        operands = [self.array(value, native=True) for value in node.inputs[1:] if value is not None]
        if node.op_type == "Gather":
            (indices,) = operands
            if indices is None or any(not -len(sizes) <= i < len(sizes) for i in indices.flat):
                return None
            return np.asarray(sizes[indices], dtype=object)
        if (
            len(node.inputs) not in (3, 4)
            or len(operands) < 2
            or any(a is None or a.size != 1 for a in operands)
        ):
            return None
        start, end = (int(a.reshape(())) for a in operands[:2] if a is not None)
        return sizes[start:end]

    def _shape_of(self, node: ir.Node) -> list[int | None] | None:
        """What a Shape yields, ``None`` in the place of dimensions that are not static."""
        source = node.inputs[0]
        dims = None if source is None else self._dims(source)
        if dims is None:
            return None
        end = node.attributes.get_int("end", len(dims))
        known = dims[node.attributes.get_int("start", 0) : end]
        return [dim if isinstance(dim, int) else None for dim in known]

    def array(self, value: ir.Value | None, *, native: bool = False) -> np.ndarray[Any, Any] | None:
        """The value of a constant: float64 for floating types, the model's own type otherwise.

        ``native`` computes in the model's own types throughout, as a runtime would.
        Returns ``None`` where the value is not constant, cannot be evaluated, or is beyond all measure.
        """
        if value is None or not self.is_constant(value):
            return None
        if self._is_leaf(value):
            return self._leaf(value, native)
        try:
            return self._run(self._tasks(value, native))
        except (NotCovered, MemoryError):
            return None

    def _tasks(self, value: ir.Value, native: bool) -> list[_Task]:
        """The expression behind a value. It outlives the graph's own nodes, which a fold may remove."""
        tasks: list[_Task] = []
        stack: list[_Key] = [(value, native)]
        done: set[_Key] = set()
        while stack:
            key = stack[-1]
            task = None if key in done else self._task(key)
            pending = [] if task is None else [k for k in task.operands if k is not None and k not in done]
            if pending:
                stack.extend(pending)
                continue
            stack.pop()
            if task is not None:
                done.add(key)
                tasks.append(task)
        return tasks

    def _task(self, key: _Key) -> _Task:
        value, native = key
        kept = self._cache.get(key)
        node = value.producer()
        if kept is not None or node is None or self._is_leaf(value):
            return _Task(key, None, (), kept)
        if not native and (node.op_type in _DISCONTINUOUS or not self._is_floating(value)):
            return _Task(key, None, ((value, True),))
        return _Task(key, node, tuple(None if v is None else (v, native) for v in self.operands(node)))

    def _run(self, tasks: list[_Task]) -> np.ndarray[Any, Any]:
        """Evaluate an expression; intermediate results go when their last reader has run."""
        reads = Counter(key for task in tasks for key in task.operands)
        results: dict[_Key, np.ndarray[Any, Any]] = {}
        limit = self._limit(tasks)
        for task in tasks:
            results[task.key] = self._run_one(task, results, limit)
            for key in task.operands:
                reads[key] -= 1
                if key is not None and not reads[key]:
                    results.pop(key, None)
        return results[tasks[-1].key]

    def _limit(self, tasks: list[_Task]) -> int:
        """Elements that an expression may make of its leaves: small ones make no large ones."""
        total = 0
        for task in tasks:
            value = task.key[0]
            if task.kept is not None:
                total += task.kept.size
            elif not task.operands and (exact := self._exact.get(value)) is not None:
                total += math.prod(exact.shape)
            elif not task.operands and (tensor := _stored(value)) is not None:
                total += tensor.size
        return min(max(_SMALL_EXPRESSION, _MOST_GROWTH * total), _LARGEST_EXPRESSION)

    def _run_one(
        self, task: _Task, known: dict[_Key, np.ndarray[Any, Any]], limit: int
    ) -> np.ndarray[Any, Any]:
        value, native = task.key
        if task.kept is not None:
            return task.kept
        if task.node is None:
            return _as_double(known[(value, True)]) if task.operands else self._leaf(value, native)
        inputs = [None if key is None else known[key] for key in task.operands]
        if task.node.op_type == "CastLike" and inputs[1] is None:
            inputs[1] = np.empty(0, self.dtype_of(task.node.inputs[1]).numpy())
        size = elements(task.node, inputs, self._opsets)
        if size is None or size > limit:
            raise NotCovered(task.node.op_type, task.node.domain, f"{size or 'no bound of'} elements")
        outputs = evaluate_node(task.node, inputs, self._opsets, precision="native" if native else "float64")
        index = value.index()
        assert index is not None
        result = np.asarray(outputs[index])
        self._keep(task.key, result)
        return result

    def _keep(self, key: _Key, result: np.ndarray[Any, Any]) -> None:
        if result.size > _KEPT_IN_MEMORY:
            return
        self._cache[key] = result
        self._cached += result.size
        while self._cached > _MOST_CACHED:
            self._cached -= self._cache.pop(next(iter(self._cache))).size

    def _is_floating(self, value: ir.Value) -> bool:
        return self.dtype_of(value) in FLOAT_TYPES

    def _leaf(self, value: ir.Value, native: bool) -> np.ndarray[Any, Any]:
        exact = self._exact.get(value)
        if exact is not None:
            return exact.rounded() if native else exact.compute()
        kept = self._cache.get((value, native))
        if kept is not None:
            return kept
        shape = self._static_shape(value)
        if shape is not None:
            return shape
        tensor = _stored(value)
        assert tensor is not None
        array = tensor.numpy()
        if not native and tensor.dtype in FLOAT_TYPES:
            array = array.astype(np.float64)
        if array.size <= _SMALL_LEAF:
            self._keep((value, native), array)
        return array

    def recipe(self, value: ir.Value | None) -> Constant64 | None:
        """The constant as a recipe, if it is a floating constant; nothing large is evaluated."""
        if value is None or not self.is_constant(value):
            return None
        exact = self._exact.get(value)
        if exact is not None:
            return exact
        tensor = _stored(value)
        if tensor is not None:
            if tensor.dtype not in FLOAT_TYPES:
                return None
            return Constant64.stored(tensor)
        dtype = self.dtype_of(value)
        if dtype not in FLOAT_TYPES:
            return None
        array = self.array(value)
        if array is None or array.dtype != np.float64:
            return None
        dims = array.shape
        if array.size <= KEPT_IN_FLOAT64:
            return Constant64.of(array, dtype)
        tasks = self._tasks(value, False)
        return Constant64(dims, dtype, lambda: self._run(tasks))


def _stored(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node, which lies in the model as it is."""
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    tensor = None if node is None else constant_of(node)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor


def constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    attribute = node.attributes.get("value")
    # Not as_tensor(), which checks the whole protocol and takes longer than all else that is done per node.
    return None if attribute is None or attribute.is_ref() else attribute.value


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


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
