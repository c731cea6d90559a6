"""The Python API: what it takes, what it gives, what it leaves alone, what it raises."""

from __future__ import annotations

import inspect as introspection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

import normfold
from normfold.reporting.report import Verification
from tests.small_models import foldable


@pytest.fixture
def proto() -> onnx.ModelProto:
    return foldable()


@pytest.fixture
def path(proto: onnx.ModelProto, tmp_path: Path) -> Path:
    target = tmp_path / "in.onnx"
    target.write_bytes(proto.SerializeToString())
    return target


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def verdict(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    monkeypatch.setattr(
        "normfold.verification.verify_fold", lambda *_: Verification(outcome, messages=["because"])
    )


class TestFold:
    def test_path(self, path: Path, tmp_path: Path) -> None:
        result = normfold.fold(path, tmp_path / "out.onnx")
        assert result.changed
        assert operators(result.model) == ["Conv", "Relu"]
        assert result.report.verification.verdict == "pass"
        assert result.proto().SerializeToString(deterministic=True) == (tmp_path / "out.onnx").read_bytes()

    def test_protobuf_is_not_changed(self, proto: onnx.ModelProto) -> None:
        before = proto.SerializeToString(deterministic=True)
        result = normfold.fold(proto)
        assert operators(result.model) == ["Conv", "Relu"]
        assert proto.SerializeToString(deterministic=True) == before

    def test_model_is_not_changed(self, proto: onnx.ModelProto) -> None:
        model = ir.from_proto(proto)
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        names = {name: value.const_value.name for name, value in model.graph.initializers.items()}
        result = normfold.fold(model)
        assert result.model is not model
        assert {name: value.const_value.name for name, value in model.graph.initializers.items()} == names
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before

    def test_input_file_is_not_changed(self, path: Path) -> None:
        before = path.read_bytes()
        normfold.fold(path)
        assert path.read_bytes() == before

    def test_computes_the_same(self, proto: onnx.ModelProto) -> None:
        x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
        (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
        (actual,) = ReferenceEvaluator(normfold.fold(proto).proto()).run(None, {"x": x})
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

    def test_save(self, path: Path, tmp_path: Path) -> None:
        result = normfold.fold(path)
        saved = result.save(tmp_path / "out.onnx")
        assert saved.path == str(tmp_path / "out.onnx")
        assert operators(ir.load(tmp_path / "out.onnx")) == ["Conv", "Relu"]

    def test_save_over_the_input(self, path: Path) -> None:
        normfold.fold(path).save(path)
        assert operators(ir.load(path)) == ["Conv", "Relu"]

    def test_result_outlives_its_input(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        proto.graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(np.zeros((2, 2, 1, 1), np.float32), "w")
        )
        source = tmp_path / "in.onnx"
        onnx.save(proto, source, save_as_external_data=True, location="w.bin", size_threshold=0)
        result = normfold.fold(source, source)
        (tmp_path / "w.bin").unlink()
        assert operators(ir.load(source)) == ["Conv", "Relu"]
        assert operators(ir.from_proto(result.proto())) == ["Conv", "Relu"]

    def test_unchanged_is_a_byte_copy(self, tmp_path: Path) -> None:
        source = tmp_path / "in.onnx"
        model = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
        )
        # An order of fields that no serialiser would choose.
        source.write_bytes(onnx.ModelProto(doc_string="d").SerializeToString() + model.SerializeToString())
        result = normfold.fold(source, tmp_path / "out.onnx")
        assert not result.changed
        assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()
        result.save(tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == source.read_bytes()

    def test_in_place_unchanged_touches_nothing(self, path: Path) -> None:
        normfold.fold(path, path)
        before = path.stat()
        normfold.fold(path, path)
        assert path.stat().st_ino == before.st_ino

    def test_provenance_keeps_the_record_before(self, proto: onnx.ModelProto) -> None:
        proto.metadata_props.add(key="normfold", value='{"version":"0"}')
        result = normfold.fold(proto)
        assert '"previous":{"version":"0"}' in result.model.metadata_props["normfold"]
        assert "normfold" not in normfold.fold(foldable(), provenance=False).model.metadata_props

    def test_progress(self, path: Path, tmp_path: Path) -> None:
        phases: list[str] = []
        normfold.fold(path, tmp_path / "out.onnx", progress=phases.append)
        assert phases == ["load", "prepare", "examine", "fold", "stage", "verify", "write"]


class TestErrors:
    @pytest.mark.parametrize(
        ("outcome", "kind", "code"),
        [("fail", normfold.VerificationFailed, 1), ("inconclusive", normfold.Inconclusive, 3)],
    )
    def test_carry_the_report(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        outcome: Any,
        kind: type[normfold.NormfoldError],
        code: int,
    ) -> None:
        verdict(monkeypatch, outcome)
        with pytest.raises(kind, match="because") as caught:
            normfold.fold(path)
        assert caught.value.exit_code == code
        assert caught.value.report is not None
        assert caught.value.report.exit == code
        assert caught.value.report.verification.verdict == outcome
        assert [site.site for site in caught.value.report.sites] == ["n"]

    def test_unusable_input(self, tmp_path: Path) -> None:
        with pytest.raises(normfold.InputError) as caught:
            normfold.fold(tmp_path / "none.onnx")
        assert caught.value.code == "NF901"
        assert caught.value.report is not None
        assert caught.value.report.findings[0].code == "NF901"

    def test_unusable_output(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(normfold.OutputError) as caught:
            normfold.fold(path, tmp_path / "none" / "out.onnx")
        assert caught.value.code == "NF920"

    @pytest.mark.parametrize("model", [None, 3, b"bytes"])
    def test_no_model(self, model: Any) -> None:
        with pytest.raises(normfold.InputError, match=r"onnx_ir\.Model"):
            normfold.fold(model)

    def test_unknown_option(self, path: Path) -> None:
        with pytest.raises(normfold.InputError, match="nosuch") as caught:
            normfold.fold(path, nosuch=1)  # type: ignore[call-arg]
        assert caught.value.code == "NF900"

    def test_invalid_model_in_memory(self, proto: onnx.ModelProto) -> None:
        model = ir.from_proto(proto)
        model.graph.node(0).op_type = "Unheard"
        with pytest.raises(normfold.InputError, match="Unheard") as caught:
            normfold.fold(model)
        assert caught.value.code == "NF903"

    def test_protobuf_whose_external_data_was_not_loaded(self, proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        with pytest.raises(normfold.InputError) as caught:
            normfold.fold(proto)
        assert caught.value.code == "NF909"


def test_inspect_proves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normfold.verification.verify_fold", None)
    report = normfold.inspect(path)
    assert [(site.site, site.action) for site in report.sites] == [("n", "folded")]
    assert report.verification.verdict is None


class TestVerify:
    def test_same(self, path: Path) -> None:
        report = normfold.verify(path, normfold.fold(path).model)
        assert (report.exit, report.verification.verdict) == (0, "pass")

    def test_other_epsilon(self, path: Path) -> None:
        other = onnx.load(path)
        other.graph.node[1].attribute.append(onnx.helper.make_attribute("epsilon", 1e-3))
        assert normfold.verify(path, other).exit == 1


class TestPass:
    def test_in_a_pipeline(self, proto: onnx.ModelProto) -> None:
        model = ir.from_proto(proto)
        fold_pass = normfold.FoldPass()
        result = ir.passes.Sequential(fold_pass)(model)
        assert result.modified
        assert operators(result.model) == ["Conv", "Relu"]
        assert operators(model) == ["Conv", "BatchNormalization", "Relu"]
        assert fold_pass.report is not None
        assert fold_pass.report.verification.verdict == "pass"

    def test_fixpoint(self, proto: onnx.ModelProto) -> None:
        once = normfold.FoldPass()(ir.from_proto(proto)).model
        assert not normfold.FoldPass()(once).modified

    def test_options(self, proto: onnx.ModelProto) -> None:
        options = normfold.FoldOptions(keep=frozenset({"n"}))
        assert "BatchNormalization" in operators(
            normfold.FoldPass(options, verify=False)(ir.from_proto(proto)).model
        )

    def test_failure(self, proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
        verdict(monkeypatch, "fail")
        with pytest.raises(normfold.VerificationFailed):
            normfold.FoldPass().call(ir.from_proto(proto))


class TestNamespace:
    @pytest.mark.parametrize("name", normfold.__all__)
    def test_everything_is_there_and_documented(self, name: str) -> None:
        value = getattr(normfold, name)
        if name != "__version__":
            assert introspection.getdoc(value)
        assert name in dir(normfold)

    def test_nothing_else(self) -> None:
        with pytest.raises(AttributeError, match="nosuch"):
            _ = normfold.nosuch  # type: ignore[attr-defined]


class TestOptions:
    def test_digest_tells_options_apart(self) -> None:
        options = normfold.FoldOptions
        assert options(skip=frozenset("ab")).sha256() == options(skip=frozenset("ba")).sha256()
        variants = [
            options(),
            options(skip=frozenset("a")),
            options(keep=frozenset("a")),
            options(freeze_initializers=True),
            options(fold_norm_affine=True),
            options(provenance=False),
        ]
        assert len({each.sha256() for each in variants}) == len(variants)

    def test_digest_is_that_of_what_a_caller_gave(self) -> None:
        assert normfold.FoldOptions(spare=frozenset("a")).sha256() == normfold.FoldOptions().sha256()
