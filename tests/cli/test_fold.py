"""``normfold fold``: what is written, what is said where, and every exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest

from normfold.reporting.report import Verification

Run = Callable[..., Any]


def names(folder: Path) -> list[str]:
    """What a user sees in a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def force(monkeypatch: pytest.MonkeyPatch, outcome: Verification | BaseException) -> None:
    """Replaces the proof by its outcome."""

    def verify_fold(*_: Any) -> Verification:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr("normfold.verification.verify_fold", verify_fold)


class TestWriting:
    def test_folds_proves_and_writes(self, run: Run, model: Path, tmp_path: Path) -> None:
        outcome = run("fold", model, "-o", tmp_path / "out.onnx")
        assert outcome.code == 0
        assert outcome.err == ""
        assert operators(tmp_path / "out.onnx") == ["Conv", "Relu"]
        assert "1 folded · 3 → 2 nodes" in outcome.out.splitlines()[0]
        assert outcome.out.splitlines()[0].endswith("verified")

    def test_proof_out_of_time_writes_nothing(self, run: Run, model: Path, tmp_path: Path) -> None:
        given = ("--time-limit", "1e-9", "--format", "json")
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", *given)
        assert outcome.code == 3 and not (tmp_path / "out.onnx").exists()
        assert "NF219" in outcome.error
        assert outcome.report["verification"]["algebra"]["out_of_time"] == ["n"]
        assert run("fold", model, "-o", tmp_path / "out.onnx", *given, "--thorough").code == 0

    def test_in_place(self, run: Run, model: Path) -> None:
        assert run("fold", model, "-o", model, "-q").code == 0
        assert operators(model) == ["Conv", "Relu"]

    def test_twice_changes_no_byte(self, run: Run, model: Path, tmp_path: Path) -> None:
        run("fold", model, "-o", tmp_path / "1.onnx")
        outcome = run("fold", tmp_path / "1.onnx", "-o", tmp_path / "2.onnx")
        assert "unchanged" in outcome.out
        assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()

    def test_same_bytes_every_time(self, run: Run, model: Path, tmp_path: Path) -> None:
        for name in ("1.onnx", "2.onnx"):
            run("fold", model, "-o", tmp_path / name)
        assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()

    def test_folder(self, run: Run, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        run("fold", model, "-o", tmp_path / "out")
        assert operators(tmp_path / "out" / "in.onnx") == ["Conv", "Relu"]

    def test_provenance(self, run: Run, model: Path, tmp_path: Path) -> None:
        run("fold", model, "-o", tmp_path / "out.onnx")
        (entry,) = onnx.load(tmp_path / "out.onnx").metadata_props
        record = json.loads(entry.value)
        assert entry.key == "normfold"
        assert [site["site"] for site in record["sites"]] == ["n"]
        assert "tmp" not in entry.value
        run("fold", model, "-o", tmp_path / "out.onnx", "--no-provenance")
        assert not onnx.load(tmp_path / "out.onnx").metadata_props

    @pytest.mark.parametrize("option", ["--check", "--dry-run"])
    def test_writes_nothing(self, run: Run, model: Path, tmp_path: Path, option: str) -> None:
        outcome = run("fold", model, option)
        assert outcome.code == (option == "--check")
        assert outcome.err == ""
        assert "1 folded" in outcome.out
        assert names(tmp_path) == ["in.onnx"]

    def test_check_of_what_is_folded_already(self, run: Run, model: Path) -> None:
        run("fold", model, "-o", model)
        assert run("fold", model, "--check").code == 0


class TestVerdicts:
    @pytest.mark.parametrize(("verdict", "code"), [("fail", 1), ("inconclusive", 3)])
    @pytest.mark.parametrize("mode", ["write", "check"])
    def test_nothing_is_written_unless_it_passes(
        self,
        run: Run,
        model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        verdict: Any,
        code: int,
        mode: str,
    ) -> None:
        force(monkeypatch, Verification(verdict, messages=["value 'n' differs"]))
        target = ("-o", tmp_path / "out.onnx") if mode == "write" else ("--check",)
        outcome = run("fold", model, *target, "--format", "json", "--report", tmp_path / "r.json")
        assert outcome.code == code
        assert "value 'n' differs" in outcome.error
        assert outcome.report["verification"]["verdict"] == verdict
        assert outcome.report["outputs"] == []
        assert names(tmp_path) == ["in.onnx", "r.json"]

    def test_an_old_file_stays(
        self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "out.onnx").write_bytes(b"old")
        force(monkeypatch, Verification("fail"))
        assert run("fold", model, "-o", tmp_path / "out.onnx").code == 1
        assert (tmp_path / "out.onnx").read_bytes() == b"old"

    def test_skipped(self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        force(monkeypatch, RuntimeError("not to be called"))
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "--no-verify")
        assert outcome.code == 0
        assert "not verified" in outcome.out
        assert (tmp_path / "out.onnx").exists()

    def test_unexpected_error(
        self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        force(monkeypatch, ZeroDivisionError("two\nlines"))
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "--format", "json")
        assert outcome.code == 4
        assert "NF999" in outcome.error
        assert "NORMFOLD_DEBUG=1" in outcome.error
        assert outcome.report["findings"][0]["code"] == "NF999"
        assert names(tmp_path) == ["in.onnx"]

    def test_traceback_on_demand(
        self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NORMFOLD_DEBUG", "1")
        force(monkeypatch, ZeroDivisionError("here"))
        outcome = run("fold", model, "-o", tmp_path / "out.onnx")
        assert outcome.code == 4
        assert "Traceback" in outcome.err

    def test_interrupt(self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        force(monkeypatch, KeyboardInterrupt())
        assert run("fold", model, "-o", tmp_path / "out.onnx").code == 130
        assert names(tmp_path) == ["in.onnx"]


class TestOptions:
    def test_reach_the_proof(
        self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def verify_fold(*arguments: Any) -> Verification:
            seen.append(arguments[-1])
            return Verification("pass")

        monkeypatch.setattr("normfold.verification.verify_fold", verify_fold)
        run(
            *("fold", model, "--dry-run", "--data", "d.npz", "--shape", "a=b=1,3,8", "--shape", "scalar="),
            *(
                "--dim",
                "N=4",
                "--ep",
                "cpu",
                "--ep",
                "cuda",
                "--seed",
                "7",
                "--thorough",
                "--allow-nonfinite",
            ),
            *("--rtol", "0.1", "--atol", "0.2", "--freeze-initializers"),
        )
        (options,) = seen
        assert options.data == "d.npz"
        assert options.shapes == {"a=b": (1, 3, 8), "scalar": ()}
        assert options.dims == {"N": 4}
        assert options.providers == ("cpu", "cuda")
        assert (options.seed, options.thorough, options.allow_nonfinite) == (7, True, True)
        assert (options.rtol, options.atol, options.freeze_initializers) == (0.1, 0.2, True)

    def test_inputs_is_data(self, run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        force(monkeypatch, Verification("pass"))
        assert run("fold", model, "--dry-run", "--inputs", "d.npz").code == 0

    @pytest.mark.parametrize(("option", "value"), [("--keep", "n"), ("--skip", "conv")])
    def test_leave_the_site_alone(
        self, run: Run, model: Path, tmp_path: Path, option: str, value: str
    ) -> None:
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", option, value)
        assert outcome.code == 0
        assert "BatchNormalization" in operators(tmp_path / "out.onnx")

    @pytest.mark.parametrize(("option", "value"), [("--keep", "nosuch"), ("--skip", "nosuch")])
    def test_unknown_names(self, run: Run, model: Path, tmp_path: Path, option: str, value: str) -> None:
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", option, value)
        assert outcome.code == 2
        assert "NF900" in outcome.error
        assert "nosuch" in outcome.error


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("MODEL",),
            ("MODEL", "--check", "--dry-run"),
            ("MODEL", "--check", "-o", "out.onnx"),
            ("MODEL", "MODEL", "-o", "out.onnx"),
            ("MODEL", "-o", "out.onnx", "--nosuch"),
            ("MODEL", "-o", "out.onnx", "--shape", "x"),
            ("MODEL", "-o", "out.onnx", "--shape", "x=a,b"),
            ("MODEL", "-o", "out.onnx", "--dim", "batch=-1"),
            ("MODEL", "-o", "out.onnx", "--report", "r.pdf"),
            ("MODEL", "-o", "out.onnx", "--report", "none/r.json"),
            ("MODEL", "-o", "out.onnx", "--format", "xml"),
        ],
    )
    def test_is_one_line(
        self, run: Run, model: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(model.parent)
        outcome = run("fold", *(str(model) if each == "MODEL" else each for each in arguments))
        assert outcome.code == 2
        assert "see normfold fold --help" in outcome.error
        assert names(Path()) == ["in.onnx"]

    def test_unusable_model(self, run: Run, broken: Path, tmp_path: Path) -> None:
        outcome = run("fold", broken, "-o", tmp_path / "out.onnx", "--format", "json")
        assert outcome.code == 2
        assert outcome.error == f"normfold: error NF902: {outcome.report['findings'][0]['message']}"
        assert outcome.report["inputs"] == [{"path": str(broken)}]

    def test_unusable_model_says_nothing_on_standard_output(self, run: Run, broken: Path) -> None:
        assert run("fold", broken, "--dry-run").out == ""

    def test_unwritable_output(self, run: Run, model: Path, tmp_path: Path) -> None:
        outcome = run("fold", model, "-o", tmp_path / "none" / "out.onnx")
        assert outcome.code == 2
        assert "NF920" in outcome.error

    def test_unusable_data(self, run: Run, model: Path, tmp_path: Path) -> None:
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "--data", tmp_path / "none.npz")
        assert outcome.code == 2
        assert "none.npz" in outcome.error


class TestReports:
    def test_every_format(self, run: Run, model: Path, tmp_path: Path, schema: Any) -> None:
        files = [tmp_path / "r.json", tmp_path / "r.md"]
        run(
            "fold",
            model,
            "-o",
            tmp_path / "out.onnx",
            *(part for file in files for part in ("--report", file)),
        )
        document = json.loads(files[0].read_text())
        jsonschema.validate(document, schema)
        assert document["outputs"][0]["path"] == str(tmp_path / "out.onnx")
        assert files[1].read_text().startswith("## normfold fold")

    def test_json_holds_everything(self, run: Run, model: Path, tmp_path: Path) -> None:
        report = run("fold", model, "-o", tmp_path / "out.onnx", "--format", "json").report
        (site,) = report["sites"]
        assert (site["site"], site["kind"], site["action"]) == ("n", "batchnorm", "folded")
        assert report["verification"]["verdict"] == "pass"
        assert report["verification"]["algebra"]["proven"] == 1
        assert set(report["timing"]) == {
            "load",
            "prepare",
            "examine",
            "fold",
            "stage",
            "verify",
            "write",
            "total",
        }
        assert report["timing"]["total"] >= report["timing"]["verify"]

    def test_quiet(self, run: Run, model: Path, tmp_path: Path) -> None:
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "-q")
        assert (outcome.out, outcome.err) == ("", "")


class TestBatch:
    def second(self, model: Path) -> Path:
        return shutil.copy(model, model.with_name("second.onnx"))

    def test_to_a_folder(self, run: Run, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        outcome = run("fold", model, self.second(model), "-o", f"{tmp_path / 'out'}/", "--format", "json")
        assert outcome.code == 0
        assert names(tmp_path / "out") == ["in.onnx", "second.onnx"]
        assert [run["inputs"][0]["path"] for run in outcome.report["runs"]] == [
            str(model),
            str(self.second(model)),
        ]

    def test_one_bad_model_does_not_stop_the_others(
        self, run: Run, model: Path, broken: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        outcome = run("fold", broken, model, "-o", tmp_path / "out")
        assert outcome.code == 2
        assert "NF902" in outcome.error
        assert names(tmp_path / "out") == ["in.onnx"]

    def test_finding_outweighs_unusable(self, run: Run, model: Path, broken: Path) -> None:
        assert run("fold", model, broken, "--check").code == 1

    def test_same_name_twice(self, run: Run, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        outcome = run("fold", model, model, "-o", tmp_path / "out")
        assert outcome.code == 2
        assert "in.onnx" in outcome.error
