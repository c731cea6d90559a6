"""The first value where two models part is found, shown with its neighbours, and saved as a pair."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import normfold.verification.verify as verify_module
from normfold.commands.verify import verify
from normfold.errors import OutputError
from normfold.verification import VerifyOptions, verify_fold, verify_models
from normfold.verification.graph_index import GraphIndex
from normfold.verification.location.locate import measure
from normfold.verification.location.matching import match_values
from tests.verification.conftest import ConvBatchNorm, model_of, no_refold

pytest.importorskip("onnxruntime")

LAYERS = 9


def network(
    wrong: int | None = None, prefix: str = "", scale: float = 1.02, swapped: bool = False
) -> ir.Model:
    """Layers of ``Tanh(x·W)`` with two parallel branches in the middle, one weight scaled."""
    rng = np.random.default_rng(0)
    names = [f"{prefix}h{i}" for i in range(LAYERS)]
    shown = list(reversed(names)) if swapped else names
    shown[-1] = "y"
    arrays: dict[str, np.ndarray] = {}
    lines, last = [], "x"
    for i, name in enumerate(shown):
        weight = rng.standard_normal((16, 16)).astype(np.float32) / 4
        arrays[f"w{i}"] = weight * np.float32(scale if i == wrong else 1)
        lines.append(f"{prefix}m{i} = MatMul({last}, w{i}) {name} = Tanh({prefix}m{i})")
        last = name
        if i == 4:
            for branch in "pq":
                arrays[branch] = rng.standard_normal((16, 16)).astype(np.float32) / 4
                factor = scale if wrong == -1 and branch == "q" else 1
                arrays[branch] *= np.float32(factor)
                lines.append(f"{prefix}{branch}v = MatMul({last}, {branch})")
            lines.append(f"{prefix}sum = Add({prefix}pv, {prefix}qv)")
            last = f"{prefix}sum"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[6, 16] x) => (float[6, 16] y) {{ {" ".join(lines)} }}"""
    return model_of(text, arrays)


@pytest.mark.parametrize("wrong", range(LAYERS))
def test_first_wrong_layer_is_found_among_right_ones(wrong: int) -> None:
    found = verify_models(network(), network(wrong))
    assert found.verdict == "fail"
    assert found.located["value"] == f"m{wrong}"
    assert found.located["error"] > 10 * found.located["bound"]
    here = [node["operator"] for node in found.located["original"] if node["place"] == "here"]
    assert here == ["MatMul"]
    assert found.messages[-1].startswith(f"NF217: the models part at 'm{wrong}', made by MatMul")


def test_neighbours_are_shown_on_both_sides() -> None:
    located = verify_models(network(), network(3)).located
    assert located["agreeing"] == ["h2"]
    for side in ("original", "folded"):
        assert [(node["place"], node["operator"]) for node in located[side]] == [
            ("before", "Tanh"),
            ("here", "MatMul"),
            ("behind", "Tanh"),
        ]


def test_wrong_branch_is_told_from_the_right_one() -> None:
    assert verify_models(network(), network(-1)).located["value"] == "qv"


@pytest.mark.parametrize("wrong", [0, 3, 7])
def test_values_with_other_names_are_matched_by_structure(wrong: int) -> None:
    located = verify_models(network(), network(wrong, prefix="other_")).located
    assert (located["value"], located["counterpart"]) == (f"m{wrong}", f"other_m{wrong}")


@pytest.mark.parametrize("wrong", [2, 6])
def test_names_that_moved_to_other_values_are_not_believed(wrong: int) -> None:
    assert verify_models(network(), network(wrong, swapped=True)).located["value"] == f"m{wrong}"


def test_renamed_fold_parts_where_it_was_folded_wrongly() -> None:
    """Names and structure differ there: the first value that can be compared again is named."""
    case = ConvBatchNorm(tail="Relu")
    folded = case.folded(*case.folded_constants(epsilon=1e-3))
    folded.graph.node(0).outputs[0].name = "z"
    located = verify_models(case.original(), folded).located
    assert (located["value"], located["counterpart"], located["agreeing"]) == ("b", "z", ["x"])


def test_equal_models_are_matched_one_to_one() -> None:
    a, b = GraphIndex(network()), GraphIndex(network(prefix="z", swapped=True))
    pairs = match_values(a, b)
    assert len(pairs) == len(set(pairs.values())) == len(a.values) - len(a.constants)
    for left, right in pairs.items():
        first, second = left.producer(), right.producer()
        assert (first and first.op_type) == (second and second.op_type)


def test_decision_that_flips_is_traced_to_its_scores() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[64, 16] x) => (int64[64] y) {
        s = MatMul(x, w) t = Neg(s) y = ArgMax<axis = 1, keepdims = 0>(t)
    }"""
    weight = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    models = [model_of(text, {"w": w}) for w in (weight, weight[:, ::-1])]
    assert verify_models(models[0], models[1]).located["value"] == "s"


def test_nothing_is_located_where_nothing_differs() -> None:
    assert verify_models(network(), network()).located == {}


def saved_pair(folder: Path) -> tuple[list[str], list[str]]:
    names = ("original.onnx", "folded.onnx")
    for name in names:
        onnx.checker.check_model(folder / name, full_check=True)
    loaded = [onnx.load(folder / name) for name in names]
    for field in ("input", "output"):
        assert [v.name for v in getattr(loaded[0].graph, field)] == [
            v.name for v in getattr(loaded[1].graph, field)
        ]
    return tuple([n.op_type for n in m.graph.node] for m in loaded)  # type: ignore[return-value]


@pytest.mark.parametrize("prefix", ["", "other_"])
def test_saved_pair_is_small_and_still_fails(tmp_path: Path, prefix: str) -> None:
    options = VerifyOptions(save_failure=tmp_path / "new" / "folder")
    found = verify_models(network(), network(5, prefix=prefix), options)
    folder = Path(found.located["saved"])
    assert saved_pair(folder) == (["MatMul"], ["MatMul"])
    readme = (folder / "README.txt").read_text()
    assert "normfold verify original.onnx folded.onnx --data inputs.npz" in readme and "'m5'" in readme
    again = verify(folder / "original.onnx", folder / "folded.onnx", data=folder / "inputs.npz")
    assert again.verification.verdict == "fail" and again.exit == 1


def test_saved_pair_of_a_fold_with_a_failing_proof(tmp_path: Path) -> None:
    pair = ConvBatchNorm(tail="Relu", sizes="N, {inputs}, H, W").pair(epsilon=1e-3)
    found = verify_fold(
        pair.original,
        pair.folded,
        pair.original,
        pair.folded,
        pair.exact,
        pair.sites,
        no_refold,
        VerifyOptions(save_failure=tmp_path),
    )
    assert (found.located["value"], found.located["from"]) == ("b", "float64")
    assert saved_pair(tmp_path) == (["Conv", "BatchNormalization"], ["Conv"])
    again = verify_models(
        tmp_path / "original.onnx",
        tmp_path / "folded.onnx",
        VerifyOptions(data=tmp_path / "inputs.npz", providers=("cpu",)),
    )
    assert again.verdict == "fail"


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.*: the failing models cannot be saved") as caught:
        verify_models(network(), network(5), VerifyOptions(save_failure=tmp_path / "file"))
    assert caught.value.code == "NF920"


def test_without_onnxruntime_the_evaluator_locates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "onnxruntime_installed", lambda: False)
    assert verify_models(network(), network(6)).located["value"] == "m6"


def test_report_with_a_location_is_valid(tmp_path: Path) -> None:
    ir.save(network(), tmp_path / "a.onnx")
    ir.save(network(2), tmp_path / "b.onnx")
    report = verify(tmp_path / "a.onnx", tmp_path / "b.onnx", save_failure=tmp_path / "saved")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(report.to_dict())), schema)
    assert report.to_dict()["verification"]["located"]["value"] == "m2"


def test_measure() -> None:
    a = np.array([1.0, np.nan], np.float32)
    assert measure(a, a.copy(), []).error == 0
    assert measure(a, np.array([1.0, 2.0], np.float32), []).error == np.inf
    assert measure(a, a[:1], []).error == np.inf
    gap = measure(a, a + np.float32(1e-3), [a + np.float32(1e-4)])
    assert gap.beyond(5) and not gap.beyond(20)
    assert measure(np.array([1, 2]), np.array([1, 3]), []).error == 1
