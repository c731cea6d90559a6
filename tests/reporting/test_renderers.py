"""The same report in each format: complete, readable, and safe whatever the names in a model are."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from normfold.errors import InputError, OutputError
from normfold.reporting.console import print_report
from normfold.reporting.files import append_job_summary, write_report
from normfold.reporting.json import render_json
from normfold.reporting.markdown import render_markdown
from normfold.reporting.report import Finding, Measurement, Report, Site, Verification
from tests.limits import largest_file

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
HOSTILE = "a|b[0]*_<script>\x1b[31m`$(x)`"


def full() -> Report:
    row = {
        "output": "y",
        "provider": "cpu",
        "optimizations": "off",
        "status": "pass",
        "bound_from": "float64",
    }
    return Report(
        "fold",
        tool={"name": "normfold", "version": "1"},
        inputs=[{"path": "in.onnx", "bytes": 10, "sha256": "0" * 64}],
        outputs=[{"path": "out.onnx", "bytes": 8, "sha256": "1" * 64}],
        sites=[
            Site("bn1", "batchnorm", "folded", "conv", ("conv1",), nodes=("BatchNormalization",)),
            Site("bn2", "batchnorm", "moved", "move", ("pool",), nodes=("Mul", "Add"), elements=(100, 25)),
            Site("bn3", "batchnorm", "kept", code="NF101", reason="the scale is computed", nodes=("Mul",)),
            Site("bn4", "batchnorm", "kept", code="NF101", reason="the shift is computed", nodes=("Mul",)),
            Site(HOSTILE, "affine", "kept", code="NF105", reason="graph output"),
        ],
        verification=Verification(
            "pass",
            algebra={"sites": 2, "proven": 2, "max_error": 1e-15, "max_ratio_to_bound": 0.01},
            rounding=[{**row, "e0": 1e-7, "e1": 2e-7, "bound": 4e-7}],
            providers=[
                {"provider": "cpu", "model": "folded", "optimizations": level, "status": "ok", "detail": ""}
                for level in ("off", "on")
            ],
            messages=["one remark"],
        ),
        timing={"total": 1.25},
        summary={"changed": True, "folded": 1, "moved": 1, "kept": 3, "nodes": [9, 7]},
    )


def measured() -> Report:
    """A benchmark's report."""
    row = Measurement(
        "cpu", 8, {"x": [8, 3]}, 0.002, 0.001, 0.05, 0.04, 2.0, (1.9, 2.1), 40, 3, 1, io_binding=False
    )
    return Report(
        "bench",
        tool={"name": "normfold", "version": "1"},
        inputs=[{"path": "a.onnx"}, {"path": "b.onnx"}],
        measurements=[row],
    )


def console(report: Report, verbose: int = 0) -> str:
    stream = io.StringIO()
    print_report(report, stream, verbose=verbose)
    return stream.getvalue()


class TestConsole:
    def test_summary_comes_first(self) -> None:
        first = console(full()).splitlines()[0]
        assert first == "in.onnx → out.onnx: 1 folded, 1 moved, 3 kept · 9 → 7 nodes · verified"

    def test_order_summary_verification_kept(self) -> None:
        text = console(full())
        places = [text.index(part) for part in ("in.onnx", "2 of 2 sites proven", "rounding of y", "NF101")]
        assert places == sorted(places)

    def test_kept_sites_are_grouped_by_code(self) -> None:
        line = next(line for line in console(full()).splitlines() if "NF101" in line)
        assert line.split()[0] == "2"
        assert "bn3, bn4" in line

    def test_folded_sites_are_listed_when_verbose(self) -> None:
        assert "conv1" not in console(full())
        verbose = console(full(), verbose=1)
        assert "bn1 (batchnorm, BatchNormalization): folded into conv1 by conv" in verbose
        assert "100 → 25 elements" in verbose
        assert "bn3 (batchnorm): kept, NF101: the scale is computed" in verbose

    def test_no_escape_codes_off_a_terminal(self) -> None:
        assert "\x1b" not in console(full(), verbose=1)

    def test_names_are_not_markup(self) -> None:
        report = full()
        report.sites = [Site("[bold]x[/]", "affine", "kept", code="NF105", reason="[red]")]
        assert "[bold]x[/]" in console(report, verbose=1)

    @pytest.mark.parametrize(
        ("verdict", "words"), [("fail", "FAILED"), ("inconclusive", "inconclusive"), (None, "not")]
    )
    def test_verdict_is_in_the_first_line(self, verdict: str | None, words: str) -> None:
        report = full()
        report.verification.verdict = verdict  # type: ignore[assignment]
        assert words in console(report).splitlines()[0]

    def test_provider_with_something_to_say(self) -> None:
        report = full()
        report.verification.providers[1] |= {"status": "refused", "detail": "no kernel"}
        assert "folded on cpu, optimizations on: refused (no kernel)" in console(report)

    def test_options_of_a_provider(self) -> None:
        report = full()
        for row in report.verification.providers:
            row["options"] = {"arena": "1"}
        assert "onnxruntime ran on cpu (arena=1), optimizations off and on" in console(report)

    def test_many_nodes_elsewhere_are_counted(self) -> None:
        report = full()
        nodes = [*(f"Conv:c{i}" for i in range(4)), "Shape", "Shape:s"]
        report.verification.providers[0] |= {"assigned": {"X": 1, "CPU": 6}, "fallbacks": nodes}
        assert "6 of 7 nodes elsewhere: 4 Conv, 2 Shape" in console(report)
        report.verification.providers[0] |= {"assigned": {"X": 1, "CPU": 2}, "fallbacks": nodes[3:5]}
        assert "2 of 3 nodes elsewhere: Conv:c3, Shape" in console(report)

    def test_many_outputs_are_cut(self) -> None:
        report = full()
        report.verification.rounding *= 20
        assert console(report).count("rounding of y") < 10
        assert console(report, verbose=1).count("rounding of y") == 20


class TestJson:
    def test_fits_the_schema(self) -> None:
        jsonschema.validate(json.loads(render_json(full())), SCHEMA)

    def test_batch_fits_the_schema(self) -> None:
        batch = Report("fold", tool={"name": "normfold", "version": "1"}, runs=[full(), full()])
        document = json.loads(render_json(batch))
        jsonschema.validate(document, SCHEMA)
        assert [run["schema"] for run in document["runs"]] == [1, 1]

    def test_kept_site_without_a_code_does_not_fit(self) -> None:
        report = full()
        report.sites = [Site("x", "affine", "kept", reason="just so")]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(render_json(report)), SCHEMA)

    def test_numbers_that_json_lacks(self) -> None:
        report = full()
        report.verification.algebra = {
            "nan": float("nan"),
            "inf": np.float32("inf"),
            "int": np.int64(3),
            "t": (1, 2),
        }
        algebra = json.loads(render_json(report))["verification"]["algebra"]
        assert algebra == {"nan": "nan", "inf": "inf", "int": 3, "t": [1, 2]}

    def test_survives_a_round_trip(self) -> None:
        document = json.loads(render_json(full()))
        assert document["sites"][4]["site"] == HOSTILE
        assert document["sites"][1]["elements"] == [100, 25]


class TestMeasurements:
    def test_console(self) -> None:
        text = console(measured())
        assert text.splitlines()[0] == "a.onnx and b.onnx: cpu, batch 8: B is 2.00 times as fast as A"
        assert "A 2 ms (spread 5 %), B 1 ms (spread 4 %), A/B 2.000 (95 % of 1.900 to 2.100)" in text

    def test_no_difference(self) -> None:
        report = measured()
        report.measurements = [dataclasses.replace(report.measurements[0], speedup=1.01, interval=(0.9, 1.1))]
        assert "no difference seen" in console(report)

    def test_b_is_slower(self) -> None:
        report = measured()
        report.measurements = [dataclasses.replace(report.measurements[0], speedup=0.5, interval=(0.4, 0.6))]
        assert "A is 2.00 times as fast as B" in console(report)

    def test_json_fits_the_schema(self) -> None:
        jsonschema.validate(json.loads(render_json(measured())), SCHEMA)

    def test_markdown(self) -> None:
        assert "| cpu | 8 | 2 | 1 | 2.000 | 1.900 to 2.100 |" in render_markdown(measured())


class TestMarkdown:
    def test_tables_stay_tables(self) -> None:
        lines = render_markdown(full()).splitlines()
        rows = [line for line in lines if line.startswith("| NF")]
        assert len(rows) == 2
        for row in rows:
            assert row.replace("\\|", "").count("|") == 5

    def test_names_are_not_html(self) -> None:
        assert "<script>" not in render_markdown(full())

    def test_findings(self) -> None:
        report = full()
        report.findings = [Finding("NF907", "error", "dangling")]
        assert "- **error** NF907: dangling" in render_markdown(report)


class TestFiles:
    @pytest.mark.parametrize(
        ("suffix", "start"),
        [
            (".json", "{"),
            (".md", "## "),
            (".html", "<!DOCTYPE html>"),
            (".junit.xml", "<?xml"),
            (".sarif", "{"),
        ],
    )
    def test_format_follows_the_suffix(self, tmp_path: Path, suffix: str, start: str) -> None:
        path = tmp_path / f"report{suffix}"
        write_report(full(), path)
        assert path.read_text().startswith(start)

    @pytest.mark.parametrize("name", ["report.pdf", "report.xml"])
    def test_unknown_suffix(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match=r"\.html, \.json, \.junit\.xml, \.md, \.sarif") as caught:
            write_report(full(), tmp_path / name)
        assert caught.value.code == "NF900"

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError) as caught:
            write_report(full(), tmp_path / "none" / "report.json")
        assert caught.value.code == "NF920"

    def test_full_disk_leaves_the_old_report(self, tmp_path: Path) -> None:
        path = tmp_path / "report.html"
        path.write_text("old")
        with largest_file(100), pytest.raises(OutputError) as caught:
            write_report(full(), path)
        assert caught.value.code == "NF920"
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        link, path = tmp_path / "link.md", tmp_path / "report.md"
        link.symlink_to(path)
        write_report(full(), link)
        assert link.is_symlink()
        assert path.read_text() == render_markdown(full())

    def test_a_pipe_is_written_to_not_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe.md"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        write_report(full(), path)
        assert os.read(reader, 1 << 16).decode() == render_markdown(full())
        os.close(reader)
        assert path.is_fifo()

    def test_job_summary_is_appended(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.md"
        path.write_text("before\n")
        append_job_summary(full(), path)
        assert path.read_text() == "before\n" + render_markdown(full())

    def test_job_summary_stays_below_the_limit(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.md"
        report = full()
        report.findings = [Finding("NF907", "error", "dangling " * 10)] * 20_000
        append_job_summary(report, path)
        text = path.read_text()
        assert 900_000 < path.stat().st_size < 1024 * 1024
        assert text.endswith("Cut: the report is too long.\n")
