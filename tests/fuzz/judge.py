"""What must be true of every fold, asked of references that share no code with normfold.

* The folded model is valid, has the same inputs and outputs, and no two values of one name.
* In float64, before its constants are rounded, every value that both models have is the same in both.
* Each constant is rounded once, to the nearest number of its type.
* onnxruntime, without optimisations, runs it, and comes as near to the float64 result as with the original.
* A second fold changes no byte.
* normfold's own proof does not reject it.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from normfold.evaluation import NotCovered
from normfold.folding import Folded, fold_model
from normfold.verification.endtoend.reference import observe
from normfold.verification.options import VerifyOptions
from normfold.verification.proof.algebra import prove_fold
from normfold.verification.proof.boundary import Observation
from tests.checker import graphs_of, nearest, nodes_of
from tests.fuzz.draft import FLOATS
from tests.fuzz.generate import Case
from tests.fuzz.reference import Reference
from tests.fuzz.runtime import InRuntime, RuntimeCrashed, RuntimeRefused

Arrays = dict[str, np.ndarray]

_TOLERANCE = 1e-9
"""Relative to the largest number of a value, in float64. A wrong epsilon moves it by 1e-4 and more."""
_ROUNDED = 2e-6
"""The same where a fold has changed an attribute, which is a float32 whatever is computed with it."""
_ROUNDED_EPSILON = 1e-7
"""The same where a fold has written an epsilon: its rounding moves σ by half of 2⁻²⁴ at most."""
_NOISE = 1e-14
_AMPLIFIED = 1e4
"""A model that makes this much out of noise of 1e-14 can say nothing."""


class Unusable(Exception):
    """The generated model itself is not valid, or cannot be run by any reference."""


class Wrong(AssertionError):
    """A fold that breaks what is true of every fold; ``proof`` is what normfold's own says, once asked."""

    proof: Mapping[str, Any] = MappingProxyType({})


class Rejected(Wrong):
    """A fold that normfold's proof rejects."""


@dataclass
class Verdict:
    """What was looked at.

    Attributes:
        folded: what the fold did.
        compared: values that were compared in float64.
        runtime: what onnxruntime could say: ``"compared"``, or why not.
        crashes: how often onnxruntime crashed on the original.
        proof: what normfold's proof says.
    """

    folded: Folded
    compared: int = 0
    runtime: str = "not asked"
    crashes: int = 0
    proof: Mapping[str, Any] = field(default_factory=dict)


Fold = Callable[..., Folded]


def judge(case: Case, *, fold: Fold = fold_model, prove: bool = True, prove_first: bool = False) -> Verdict:
    """Folds a case and looks at what came out.

    Args:
        case: the model, and the options to fold it with.
        fold: what folds.
        prove: ask normfold's own proof too.
        prove_first: ask it before the references.

    Raises:
        Unusable: the case says nothing.
        Rejected: the proof rejects the fold.
        Wrong: the fold is wrong.
    """
    model = case.model
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Unusable(f"not valid: {_line(error)}") from error
    feeds = inputs(model, case.sizes, seed=0)
    ours = _run_original(model, feeds)
    verdict = Verdict(fold(ir.from_proto(model), case.options))
    if not verdict.folded.changed:
        return verdict
    proto = ir.to_proto(verdict.folded.model)
    if prove_first:
        verdict.proof = _proof(verdict.folded, case, fold)
    try:
        _is_right(case, proto, ours, feeds, verdict, fold)
    except Wrong as error:
        error.proof = verdict.proof
        raise
    if prove and not prove_first:
        verdict.proof = _proof(verdict.folded, case, fold)
    return verdict


def _is_right(
    case: Case, proto: onnx.ModelProto, ours: Arrays, feeds: Arrays, verdict: Verdict, fold: Fold
) -> None:
    model = case.model
    _is_valid(proto)
    _has_same_signature(model, proto, case, verdict.folded)
    _has_unique_names(proto)
    _is_rounded_once(verdict.folded, proto)
    verdict.compared = _compare(model, proto, verdict.folded, ours, feeds)
    with InRuntime(model) as original:
        _compare_other_sizes(case, proto, verdict.folded, original)
        verdict.runtime = _compare_in_runtime(model, proto, ours, feeds, original)
        verdict.crashes = original.crashes
    _is_settled(proto, case, fold)


def inputs(model: onnx.ModelProto, sizes: Mapping[str, int], *, seed: int) -> Arrays:
    """Arrays for the inputs that have no default."""
    rng = np.random.default_rng(seed)
    defaults = {tensor.name for tensor in model.graph.initializer}
    arrays = {}
    for value in model.graph.input:
        if value.name in defaults:
            continue
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "i":
            arrays[value.name] = rng.integers(0, 4, shape).astype(dtype)
            continue
        arrays[value.name] = (1.5 * rng.standard_normal(shape) + 0.3).astype(dtype)
    return arrays


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Infinities, and means of nothing, are compared; they need no warning."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _run_original(model: onnx.ModelProto, feeds: Arrays) -> Arrays:
    try:
        with _quiet():
            values = Reference(model).run(feeds)
    except Exception as error:  # onnx.reference and numpy raise whatever comes to hand
        raise Unusable(f"does not run: {type(error).__name__}: {_line(error)}") from error
    if not all(np.isfinite(values[o.name]).all() for o in model.graph.output):
        raise Unusable("its results are not finite")
    return values


def _is_valid(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Wrong(f"the folded model is not valid: {_line(error)}") from error


def _has_same_signature(model: onnx.ModelProto, proto: onnx.ModelProto, case: Case, folded: Folded) -> None:
    """Inputs, outputs and versions; a norm's new form may need a later opset."""
    defaults = {t.name for m in (model, proto) for t in m.graph.initializer}
    listed = case.options.freeze_initializers or model.ir_version < 4
    before, after = (
        [i for i in m.graph.input if not (listed and i.name in defaults)] for m in (model, proto)
    )
    if before != after or list(model.graph.output) != list(proto.graph.output):
        raise Wrong("inputs or outputs changed")
    opsets = [next(o.version for o in m.opset_import if o.domain == "") for m in (model, proto)]
    raised = any(site.action == "substituted" for site in folded.sites)
    if opsets[0] > opsets[1] or (opsets[0] < opsets[1] and not raised):
        raise Wrong(f"opset {opsets[0]} became {opsets[1]}")


def _has_unique_names(proto: onnx.ModelProto) -> None:
    names = [t.name for graph in graphs_of(proto.graph) for t in graph.initializer]
    names += [name for graph in graphs_of(proto.graph) for n in graph.node for name in n.output if name]
    names += [i.name for graph in graphs_of(proto.graph) for i in graph.input if i.name not in set(names)]
    if len(set(names)) != len(names):
        raise Wrong(f"names occur twice: {sorted(n for n in set(names) if names.count(n) > 1)}")


def _is_rounded_once(folded: Folded, proto: onnx.ModelProto) -> None:
    stored = {t.name: t for graph in graphs_of(proto.graph) for t in graph.initializer}
    for name, compute in folded.exact.items():
        array, exact = onnx.numpy_helper.to_array(stored[name]), compute()
        if array.shape != exact.shape or not np.array_equal(
            array, nearest(exact, array.dtype), equal_nan=True
        ):
            raise Wrong(f"{name!r} is not its float64 value rounded once")


def _compare(
    model: onnx.ModelProto, proto: onnx.ModelProto, folded: Folded, ours: Arrays, feeds: Arrays
) -> int:
    try:
        with _quiet():
            theirs = Reference(proto, folded.exact).run(feeds)
    except Exception as error:  # likewise
        raise Wrong(f"the folded model does not run: {type(error).__name__}: {_line(error)}") from error
    weights = {t.name for m in (model, proto) for t in m.graph.initializer}
    tolerance = _tolerance(_attributes(proto) - _attributes(model))
    compared = 0
    for name in sorted((ours.keys() & theirs.keys()) - weights - feeds.keys()):
        expected, actual = np.asarray(ours[name]), np.asarray(theirs[name])
        if expected.shape != actual.shape:
            raise Wrong(f"{name!r} has shape {actual.shape} and not {expected.shape}")
        if expected.dtype.kind != "f":
            if not np.array_equal(expected, actual):
                raise Wrong(f"{name!r} is not the same")
            continue
        compared += 1
        error, largest = _distance(expected, actual), _largest(expected)
        # Where a bound clips all there is to 0, the numbers that come to it are about 1 all the same.
        slight = error <= max(tolerance * largest, _NOISE)
        if not slight and error > _AMPLIFIED * _noise(model, name, expected, feeds):
            raise Wrong(f"{name!r} differs by {error:.3g} where the largest number is {largest:.3g}")
    missing = [o.name for o in model.graph.output if o.name not in theirs]
    if missing:
        raise Wrong(f"outputs are missing: {missing}")
    return compared


def _tolerance(written: set[tuple[str, str, float]]) -> float:
    if any(name != "epsilon" for _, name, _ in written):
        return _ROUNDED
    return _ROUNDED_EPSILON if written else _TOLERANCE


def _attributes(model: onnx.ModelProto) -> set[tuple[str, str, float]]:
    """The numbers that operators have as attributes."""
    return {
        (node.op_type, attribute.name, attribute.f)
        for node in nodes_of(model.graph)
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.FLOAT
    }


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; NaN and infinities have to be at the same places."""
    usual = np.isfinite(a)
    if not np.array_equal(np.nan_to_num(a[~usual]), np.nan_to_num(b[~usual])):
        return np.inf
    with np.errstate(invalid="ignore"):
        difference = np.abs(a[usual] - b[usual])
    return float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0.0))


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array[np.isfinite(array)]), initial=0.0))


def _noise(
    model: onnx.ModelProto, name: str, value: np.ndarray, feeds: Arrays, size: float = _NOISE
) -> float:
    """How much a value of the original answers to relative noise on inputs and weights."""
    rng = np.random.default_rng(1)

    def noisy(array: np.ndarray) -> np.ndarray:
        array = np.asarray(array)
        if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
            return array
        exact = array.astype(np.float64)
        return exact * (1 + size * rng.uniform(-1, 1, exact.shape))

    weights = {
        t.name: functools.partial(noisy, onnx.numpy_helper.to_array(t)) for t in model.graph.initializer
    }
    with _quiet():
        moved = Reference(model, weights).run({k: noisy(v) for k, v in feeds.items()})
    return _distance(value, np.asarray(moved[name]))


def _compare_other_sizes(case: Case, proto: onnx.ModelProto, folded: Folded, original: InRuntime) -> None:
    """Also where the symbolic axes have other sizes than the model was drawn with, if onnxruntime takes
    them: it checks what numpy broadcasts. And with an empty batch."""
    others = [{name: size + more for name, size in case.sizes.items()} for more in (1, 2) if case.sizes]
    if "N" in case.sizes:
        others.append({**case.sizes, "N": 0})
    for seed, sizes in enumerate(others, 1):
        feeds = inputs(case.model, sizes, seed=seed)
        try:
            # Its recurrent layers abort the process on an empty batch.
            if all(sizes.values()):
                original.run(feeds)
            ours = _run_original(case.model, feeds)
        except (RuntimeRefused, RuntimeCrashed, Unusable):
            continue  # the model does not take these sizes, whoever says so
        _compare(case.model, proto, folded, ours, feeds)


def _compare_in_runtime(
    model: onnx.ModelProto, proto: onnx.ModelProto, ours: Arrays, feeds: Arrays, original: InRuntime
) -> str:
    try:
        before = original.run(feeds)
    except RuntimeRefused as error:
        return f"cannot run the original: {_line(error)[:60]}"
    except RuntimeCrashed:
        return "crashed on the original"
    if any(node.domain == "com.microsoft" for node in nodes_of(proto.graph)):
        return "the folded model is for another provider"
    try:
        with InRuntime(proto) as folded:
            after = folded.run(feeds)
    except RuntimeRefused as error:
        raise Wrong(f"onnxruntime does not run the folded model: {_line(error)}") from error
    except RuntimeCrashed as error:
        raise Wrong(f"onnxruntime crashes on the folded model alone: {_line(error)}") from error
    said = "compared"
    for output, first, second in zip(model.graph.output, before, after, strict=True):
        expected = np.asarray(ours[output.name])
        if expected.dtype.kind != "f":
            continue
        said = _judge_rounding(model, output, expected, (first, second), feeds, said)
    return said


def _judge_rounding(
    model: onnx.ModelProto,
    output: onnx.ValueInfoProto,
    expected: np.ndarray,
    results: tuple[np.ndarray, np.ndarray],
    feeds: Arrays,
    said: str,
) -> str:
    name = output.name
    e0, e1 = (_distance(expected, np.asarray(r).astype(np.float64)) for r in results)
    largest, unit = _largest(expected), _unit(model)
    if not np.isfinite(e0):
        return "the original is not finite in its own type"
    if e1 <= max(16 * e0, 64 * unit * largest):
        return said if e0 <= max(1e-2, 64 * unit) * largest else "the original is far from float64"
    if e1 > 256 * _noise(model, name, expected, feeds, unit):
        raise Wrong(
            f"in onnxruntime {name!r} is off by {e1:.3g}, with the original by {e0:.3g}, "
            f"where the largest number is {largest:.3g}"
        )
    return "the original amplifies rounding"


def _unit(model: onnx.ModelProto) -> float:
    """The relative rounding of the narrowest type that a value of the model may have."""
    types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    for node in nodes_of(model.graph):
        types |= {a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"}
    floating = [helper.tensor_dtype_to_np_dtype(t) for t in types & set(FLOATS)]
    return max(float(ml_dtypes.finfo(t).eps) for t in floating)  # type: ignore[no-untyped-call]


def _is_settled(proto: onnx.ModelProto, case: Case, fold: Fold) -> None:
    first = proto.SerializeToString(deterministic=True)
    again = fold(ir.from_proto(proto), case.options)
    if again.changed:
        acted = [(site.site, site.action, site.rule) for site in again.sites if site.action != "kept"]
        raise Wrong(f"a second fold: {acted}")
    if ir.to_proto(again.model).SerializeToString(deterministic=True) != first:
        raise Wrong("a second fold changes bytes")


def _proof(folded: Folded, case: Case, fold: Fold) -> Mapping[str, Any]:
    def refold(region: ir.Model) -> tuple[ir.Model, Mapping[str, Callable[[], np.ndarray]]]:
        again = fold(region, case.options)
        return again.model, again.exact

    freeze = case.options.freeze_initializers
    options = VerifyOptions(freeze_initializers=freeze)
    feeds = inputs(case.model, case.sizes, seed=0)
    proof = prove_fold(
        folded.original,
        folded.model,
        folded.exact,
        folded.sites,
        refold,
        options,
        observe=lambda variant: None if variant else _observed(folded.original, feeds, options),
    )
    if proof["failed"]:
        raise Rejected(f"the proof rejects it: {proof['failed'][0]}")
    return proof


def _observed(model: ir.Model, feeds: Arrays, options: VerifyOptions) -> Observation | None:
    try:
        return observe(model, feeds, options)
    except NotCovered:
        return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
