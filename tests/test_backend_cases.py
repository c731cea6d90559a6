"""onnx's own backend tests: a fold leaves every model valid, settled, and equal to the stored outputs.

The generated node cases, the models that PyTorch once exported, the simple ones, and the light classifiers
(whole architectures whose weights are filled by ConstantOfShape).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.backend.test
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from normfold.evaluation import Evaluator, NotCovered
from normfold.folding import Folded, fold_model

PARTS = 8
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A model with one or more pairs of inputs by name, and outputs in the order of the graph's."""

    name: str
    model: onnx.ModelProto
    data: Sequence[tuple[Arrays, Sequence[Any]]]
    rtol: float = 1e-3
    atol: float = 1e-7


def node_cases() -> list[Case]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    return [
        Case(c.name, c.model, [(_named(c.model, i), o) for i, o in c.data_sets or ()], c.rtol, c.atol)
        for c in found
    ]


def _named(model: onnx.ModelProto, inputs: Sequence[Any]) -> dict[str, Any]:
    return dict(zip((info.name for info in model.graph.input), inputs, strict=False))


def folder_cases(kind: str) -> Iterator[Case]:
    """Models in folders of their own, each with its data beside it."""
    for test in load_model_tests(kind=kind):
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        sets = [
            (
                _named(model, _tensors(data, "input", model.graph.input)),
                _tensors(data, "output", model.graph.output),
            )
            for data in sorted(folder.glob("test_data_set_*"))
        ]
        yield Case(test.name, model, sets, test.rtol, test.atol)


def _tensors(folder: Path, kind: str, infos: Sequence[onnx.ValueInfoProto]) -> list[np.ndarray | None]:
    """Stored arrays, ``None`` for what is a sequence or an optional."""
    found: list[np.ndarray | None] = []
    for number, info in enumerate(infos):
        path = folder / f"{kind}_{number}.pb"
        if not path.exists():
            break
        is_tensor = info.type.HasField("tensor_type")
        found.append(numpy_helper.to_array(onnx.load_tensor(path)) if is_tensor else None)
    return found


def light_case(path: Path) -> Case:
    """The input is what onnx's own runner feeds: a ramp from 0 to 1."""
    model = onnx.load(path)
    defaults = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name not in defaults:
            shape = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            feeds[info.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
    stored = path.with_name(f"{path.stem}_output_0.pb")
    return Case(path.stem, model, [(feeds, [numpy_helper.to_array(onnx.load_tensor(stored))])])


@pytest.fixture(scope="module")
def all_nodes() -> list[Case]:
    found = node_cases()
    assert len(found) > 1500
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_node_cases_stay_right(all_nodes: list[Case], part: int) -> None:
    changed = [case for case in all_nodes[part::PARTS] if stays_right(case)]
    assert changed


@pytest.mark.parametrize("kind", FOLDERS)
def test_exported_models_stay_right(kind: str) -> None:
    found = list(folder_cases(kind))
    assert len(found) > 20
    for case in found:
        stays_right(case)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models_stay_right(path: Path) -> None:
    case = light_case(path)
    changed = stays_right(case)
    assert changed == any(node.op_type == "BatchNormalization" for node in case.model.graph.node)


def stays_right(case: Case) -> bool:
    """Folds the case and holds it to everything that is true of every fold; says whether that changed it."""
    argument = ir.from_proto(case.model)
    before = ir.to_proto(argument).SerializeToString(deterministic=True)
    folded = fold_model(argument)
    proto = ir.to_proto(folded.model)
    if not folded.changed:
        assert case.model.functions or proto.SerializeToString(deterministic=True) == before, case.name
        return False
    if is_valid(case.model):
        onnx.checker.check_model(proto)
    assert list(proto.graph.output) == list(case.model.graph.output), case.name
    assert not fold_model(ir.from_proto(proto)).changed, case.name
    for feeds, outputs in case.data:
        if not all(isinstance(array, np.ndarray) for array in (*feeds.values(), *outputs)):
            continue
        equal_in_float64(case, folded, feeds)
        equal_to_stored(case, proto, feeds, outputs)
    return True


def is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True


def equal_in_float64(case: Case, folded: Folded, feeds: Arrays) -> None:
    """Before rounding nothing differs, wherever the evaluator knows the operators."""
    if sum(array.size for array in feeds.values()) > 10**5:
        return
    doubles = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in feeds.items()}
    try:
        with np.errstate(all="ignore"):
            before = Evaluator(folded.original).run(doubles)
            after = Evaluator(folded.model, constants=folded.exact).run(doubles)
    except NotCovered:
        return
    for output, expected in before.items():
        if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
            largest = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
            np.testing.assert_allclose(
                after[output], expected, rtol=0, atol=1e-12 * largest, err_msg=f"{case.name}: {output}"
            )


def equal_to_stored(case: Case, proto: onnx.ModelProto, feeds: Arrays, outputs: Sequence[Any]) -> None:
    """The stored outputs are met as well as a backend has to, or as the type of the numbers allows."""
    for result, expected, info in zip(run(proto, feeds), outputs, proto.graph.output, strict=False):
        said = f"{case.name}: {info.name}"
        assert result.shape == expected.shape and result.dtype == expected.dtype, said
        if expected.dtype.kind in "iubOSU":
            np.testing.assert_array_equal(result, expected, err_msg=said)
            continue
        wanted = expected.astype(np.float64)
        largest = float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
        unit = float(ml_dtypes.finfo(expected.dtype).eps)
        np.testing.assert_allclose(
            result.astype(np.float64), wanted, case.rtol, case.atol + 4 * unit * largest, err_msg=said
        )


def run(model: onnx.ModelProto, feeds: Arrays) -> list[Any]:
    """onnxruntime without optimisations; ``onnx.reference`` where it has no kernel."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        read = {value.name for value in session.get_inputs()}
        return list(session.run(None, {name: a for name, a in feeds.items() if name in read}))
    except Exception:  # its exceptions share no public base
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, dict(feeds)))
