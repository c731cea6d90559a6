"""Many models: what is written, printed and reported; what is skipped the next time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import normfold
from normfold.errors import InputError
from normfold.reporting.report import Report

ALL = ["a.onnx", "c.onnx", "sub/b.onnx"]


def stamps(folder: Path) -> dict[str, int]:
    """The file behind each name; another file has another number."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.onnx")}


def skipped(report: Report) -> dict[str, bool]:
    """For each model that is done whether it was skipped."""
    return {
        Path(run.inputs[0]["path"]).name: bool(run.summary.get("skipped"))
        for run in report.runs
        if run.exit == 0
    }


class TestWriting:
    @pytest.mark.parametrize("jobs", [None, 2])
    def test_same_bytes_as_one_by_one(
        self, tools: Any, models: Path, tmp_path: Path, jobs: int | None
    ) -> None:
        out, alone = tmp_path / "out", tmp_path / "alone"
        assert normfold.fold_many([models], out, jobs=jobs).exit == 0
        for name in ALL:
            (alone / name).parent.mkdir(parents=True, exist_ok=True)
            normfold.fold(models / name, alone / name)
        assert tools.visible(out) == tools.visible(alone)
        assert len(tools.visible(out)) == len(ALL) + 1
        for name in tools.visible(out):
            assert (out / name).read_bytes() == (alone / name).read_bytes()

    def test_in_place(self, models: Path) -> None:
        before = (models / "a.onnx").read_bytes()
        assert normfold.fold_many([models], models).exit == 0
        assert (models / "a.onnx").read_bytes() != before
        again = normfold.fold_many([models], models)
        assert [run.summary["changed"] for run in again.runs] == [False] * 3
        assert set(skipped(normfold.fold_many([models], models)).values()) == {True}

    def test_check_writes_nothing(self, tools: Any, models: Path) -> None:
        before = tools.visible(models)
        report = normfold.fold_many([models], check=True)
        assert report.exit == 1
        assert [[finding.code for finding in run.findings] for run in report.runs] == [["NF100"]] * 3
        assert tools.visible(models) == before
        assert not (models / ".normfold").exists()

    def test_jobs_and_dask_exclude_each_other(self, models: Path) -> None:
        with pytest.raises(InputError):
            normfold.fold_many([models], jobs=1, dask="tcp://127.0.0.1:1")


class TestCommand:
    def test_prints_one_line_for_each_and_one_for_all(self, tools: Any, models: Path, tmp_path: Path) -> None:
        (models / "bad.onnx").write_bytes(b"no model")
        ended = tools.run("fold", models, "-o", tmp_path / "out", "--jobs", "2")
        assert ended.code == 2
        *lines, total = ended.out.splitlines()
        assert sorted(line.split(": ")[0] for line in lines) == sorted(
            f"{models / name} → {tmp_path / 'out' / name}" for name in ALL
        )
        assert all(line.endswith("verified") for line in lines)
        assert total == "4 models: 3 folded · 0 unchanged · 1 failed"
        (complaint,) = ended.err.splitlines()
        assert complaint.startswith(f"normfold: error NF902: {models / 'bad.onnx'}: ")

    def test_reports_in_the_order_of_the_arguments(self, tools: Any, models: Path, tmp_path: Path) -> None:
        names = [models / "sub", models / "a.onnx", models / "c.onnx"]
        ended = tools.run("fold", *names, "-o", tmp_path / "out", "-j2", "--format", "json")
        paths = [run["inputs"][0]["path"] for run in ended.report["runs"]]
        assert paths == [str(models / "sub" / "b.onnx"), str(models / "a.onnx"), str(models / "c.onnx")]
        assert ended.report["summary"] == {"models": 3, "failed": 0, "skipped": 0, "changed": 3}
        assert ended.err == ""

    def test_of_one_model_is_a_batch_too(self, tools: Any, models: Path, tmp_path: Path) -> None:
        ended = tools.run("fold", models / "sub", "-o", tmp_path / "out", "--format", "json")
        assert len(ended.report["runs"]) == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("IN", "-o", "out.onnx"), "-o must be a folder"),
            (("IN", "-o", "-"), "-o must be a folder"),
            (("IN", "-o", "IN/a.onnx"), "-o must be a folder"),
            (("IN", "-", "-o", "out"), "standard input"),
            (("IN", "-o", "out", "--jobs", "0"), "--jobs"),
            (("IN", "-o", "out", "--jobs", "2", "--dask", "tcp://h:1"), "exclude each other"),
            (("IN", "IN/a.onnx", "-o", "out"), "same file 'a.onnx'"),
            (("IN/none*", "-o", "out"), "no .onnx file"),
        ],
    )
    def test_refuses_up_front(
        self, tools: Any, models: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        before = tools.visible(tmp_path)
        ended = tools.run("fold", *(word.replace("IN", str(models)) for word in arguments))
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1
        assert words in ended.err
        assert ended.out == ""
        assert tools.visible(tmp_path) == before

    @pytest.mark.parametrize(
        ("kinds", "code"), [(("good",), 0), (("good", "bad"), 2), (("good", "wrong", "bad"), 1)]
    )
    def test_exit_code_is_that_of_the_worst(
        self, tools: Any, tmp_path: Path, kinds: tuple[str, ...], code: int
    ) -> None:
        folder = tmp_path / "models"
        folder.mkdir()
        (tmp_path / "x.onnx").write_bytes(tools.content())
        if "good" in kinds:
            normfold.fold(tmp_path / "x.onnx", folder / "good.onnx")
        if "wrong" in kinds:
            (folder / "wrong.onnx").write_bytes(tools.content())
        if "bad" in kinds:
            (folder / "bad.onnx").write_bytes(b"no model")
        ended = tools.run("fold", "--check", folder)
        assert ended.code == code
        assert ("NF100: would change: n" in ended.out) == ("wrong" in kinds)

    def test_a_folder_that_cannot_be_made_fails_its_models(
        self, tools: Any, models: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "sub").touch()
        ended = tools.run("fold", models, "-o", tmp_path / "out")
        assert ended.code == 2
        (complaint,) = ended.err.splitlines()
        assert "NF920" in complaint
        written = [name for name in tools.visible(tmp_path / "out") if name.endswith(".onnx")]
        assert written == ["a.onnx", "c.onnx"]


class TestSkipping:
    @pytest.fixture
    def out(self, models: Path, tmp_path: Path) -> Path:
        """What a first run has written."""
        out = tmp_path / "out"
        assert normfold.fold_many([models], out, verify=False).exit == 0
        return out

    def again(self, models: Path, out: Path, **options: Any) -> dict[str, bool]:
        """Folds again: a new file is where nothing was skipped, and only there."""
        before = stamps(out)
        report = normfold.fold_many([models], out, **{"verify": False, **options})
        assert report.exit == 0
        found = skipped(report)
        unchanged = {name for name, stamp in stamps(out).items() if before.get(name) == stamp}
        assert unchanged == {name for name in ALL if found[Path(name).name]}
        return found

    def test_what_is_unchanged(self, models: Path, out: Path) -> None:
        assert set(self.again(models, out).values()) == {True}

    def test_the_report_still_says_what_was_done(self, models: Path, out: Path) -> None:
        first = normfold.fold_many([models], out, force=True)
        second = normfold.fold_many([models], out)
        for one, other in zip(first.runs, second.runs, strict=True):
            assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
            assert {**one.summary, "skipped": True} == other.summary
            assert one.verification.verdict == other.verification.verdict == "pass"

    def test_not_another_model(self, tools: Any, models: Path, out: Path) -> None:
        (models / "a.onnx").write_bytes(tools.content(7))
        assert self.again(models, out) == {"a.onnx": False, "b.onnx": True, "c.onnx": True}

    def test_not_other_external_data(self, models: Path, out: Path) -> None:
        data = models / "c.onnx.bin"
        changed, status = bytearray(data.read_bytes()), data.stat()
        changed[0] ^= 1
        data.write_bytes(changed)
        os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert self.again(models, out) == {"a.onnx": True, "b.onnx": True, "c.onnx": False}

    @pytest.mark.parametrize(
        "options",
        [{"verify": True}, {"seed": 1}, {"skip": ["conv"]}, {"provenance": False}, {"thorough": True}],
    )
    def test_not_with_other_options(self, models: Path, out: Path, options: dict[str, Any]) -> None:
        assert set(self.again(models, out, **options).values()) == {False}

    def test_not_with_other_versions(self, models: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(normfold, "__version__", "0.0.0")
        assert set(self.again(models, out).values()) == {False}

    @pytest.mark.parametrize("damage", ["gone", "cut", "other"])
    def test_not_where_the_result_is_not_as_it_was(
        self, tools: Any, models: Path, out: Path, damage: str
    ) -> None:
        path, expected = out / "a.onnx", (out / "a.onnx").read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(expected[:-1] if damage == "cut" else tools.content(9))
        assert self.again(models, out) == {"a.onnx": False, "b.onnx": True, "c.onnx": True}
        assert path.read_bytes() == expected

    def test_not_where_its_data_are_gone(self, models: Path, out: Path) -> None:
        (data,) = out.glob("*.data")
        data.unlink()
        assert self.again(models, out)["c.onnx"] is False
        assert data.exists()

    @pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"schema": 2}', '{"schema": 1, "tool": 3}'])
    def test_not_by_a_damaged_record(self, models: Path, out: Path, text: str) -> None:
        (out / ".normfold" / "a.onnx.json").write_text(text)
        assert self.again(models, out) == {"a.onnx": False, "b.onnx": True, "c.onnx": True}

    def test_nothing_by_force(self, models: Path, out: Path) -> None:
        assert set(self.again(models, out, force=True).values()) == {False}

    def test_what_failed_is_tried_again(self, tools: Any, models: Path, tmp_path: Path) -> None:
        (models / "bad.onnx").write_bytes(b"no model")
        assert normfold.fold_many([models], tmp_path / "out", verify=False).exit == 2
        (models / "bad.onnx").write_bytes(tools.content(8))
        report = normfold.fold_many([models], tmp_path / "out", verify=False)
        assert report.exit == 0
        assert skipped(report) == {"a.onnx": True, "b.onnx": True, "bad.onnx": False, "c.onnx": True}

    def test_records_hold_no_path_of_the_machine(self, out: Path, tmp_path: Path) -> None:
        records = list((out / ".normfold").rglob("*.json"))
        assert len(records) == 3
        for path in records:
            assert str(tmp_path) not in path.read_text()
            assert set(json.loads(path.read_text())) == {
                *("schema", "tool", "options", "run", "input", "output", "verdict", "summary")
            }
