"""A short run of ``tests.loading.damage``; the long one is a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, parser

from normfold.loading import load
from normfold.loading.diagnosis import diagnose
from tests.loading.damage import PLAIN, corpus, damaged, outcome

FILES = 150


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("number", range(4), ids=["plain", "nested", "shapes", "outside"])
def test_damaged_files_fold_or_are_refused(tmp_path: Path, number: int) -> None:
    path = corpus(tmp_path)[number]
    sound, chance = path.read_bytes(), np.random.default_rng(number)
    ends = set()
    for _ in range(FILES):
        path.write_bytes(damaged(sound, chance))
        ends.add(outcome(path))
    assert {"NF902", "NF903"} <= ends


@pytest.mark.filterwarnings("error::UserWarning")
def test_damaged_external_data(tmp_path: Path) -> None:
    path = corpus(tmp_path)[3]
    data, chance = tmp_path / "weights.bin", np.random.default_rng(0)
    sound = data.read_bytes()
    ends = set()
    for _ in range(20):
        data.write_bytes(damaged(sound, chance))
        ends.add(outcome(path))
    assert ends <= {"folded", "NF909"}
    assert len(ends) == 2


class TestDiagnosis:
    """Where a fold stumbles over an invalid model, the model is told, and nothing else is."""

    def model(self, text: str = PLAIN) -> onnx.ModelProto:
        return parser.parse_model(text)

    def said(self, model: onnx.ModelProto, tmp_path: Path) -> tuple[str, str] | None:
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        fault = diagnose(load(tmp_path / "m.onnx").model)
        return None if fault is None else (str(fault.code), str(fault))

    def test_a_sound_model(self, tmp_path: Path) -> None:
        assert [self.said(onnx.load(path), tmp_path) for path in corpus(tmp_path)[:3]] == [None] * 3

    def test_a_permutation_of_other_axes(self, tmp_path: Path) -> None:
        model = self.model()
        model.graph.node[2].op_type = "Transpose"
        model.graph.node[2].attribute.append(helper.make_attribute("perm", [0, 9, 1, 2]))
        code, text = self.said(model, tmp_path) or ("", "")
        assert code == "NF903"
        assert "perm" in text

    def test_a_function_of_another_opset(self, tmp_path: Path) -> None:
        model = onnx.load(corpus(tmp_path)[1])
        model.functions[0].opset_import[0].version = 16
        code, text = self.said(model, tmp_path) or ("", "")
        assert code == "NF913"
        assert "twice" in text

    def test_a_custom_operator_is_no_fault(self, tmp_path: Path) -> None:
        model = self.model()
        model.opset_import.add(domain="custom", version=1)
        model.graph.node[0].domain, model.graph.node[0].op_type = "custom", "Unheard"
        assert self.said(model, tmp_path) is None
