"""SARIF: valid against the standard's schema, and what code scanning needs is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from normfold.codes import CODES
from normfold.reporting.report import Report
from normfold.reporting.sarif import render_sarif

SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text())


def rendered(report: Report) -> dict[str, Any]:
    """The only run of a valid log."""
    log = json.loads(render_sarif(report))
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    return dict(run)


@pytest.mark.parametrize("name", ["report", "failed", "unusable"])
def test_fits_the_schema(name: str, request: pytest.FixtureRequest) -> None:
    run = rendered(request.getfixturevalue(name))
    assert run["tool"]["driver"]["name"] == "normfold"
    assert run["tool"]["driver"]["version"] == "1.2.3"


def test_the_schema_can_fail() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(SCHEMA).validate({"version": "2.1.0", "runs": [{"results": []}]})


def test_kept_site_is_a_note_with_its_place(report: Report, hostile: str) -> None:
    run = rendered(report)
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("NF105", "note")
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "models/in%20put.onnx", "index": 0}
    assert location["physicalLocation"]["region"]["startLine"] == 1
    assert location["logicalLocations"][0]["fullyQualifiedName"] == hostile
    assert run["artifacts"][0]["hashes"] == {"sha-256": "0" * 64}


def test_rules_say_what_explain_says(report: Report) -> None:
    run = rendered(report)
    (rule,) = run["tool"]["driver"]["rules"]
    assert run["results"][0]["ruleIndex"] == 0
    assert rule["shortDescription"]["text"] == CODES["NF105"].title
    for text in (CODES["NF105"].what, CODES["NF105"].why, CODES["NF105"].unblock):
        assert text in rule["help"]["text"]


def test_reasons_of_a_failure_are_errors(failed: Report) -> None:
    run = rendered(failed)
    levels = {result["ruleId"]: result["level"] for result in run["results"]}
    assert levels == {"NF203": "error", "NF202": "error", "NF105": "note"}
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [ids[result["ruleIndex"]] for result in run["results"]] == [r["ruleId"] for r in run["results"]]


def test_remark_beside_a_pass_is_a_warning(report: Report) -> None:
    report.verification.messages = ["NF204: cpu was not exercised"]
    assert rendered(report)["results"][0]["level"] == "warning"


def test_execution(report: Report, unusable: Report) -> None:
    assert rendered(report)["invocations"] == [{"executionSuccessful": True, "exitCode": 0}]
    assert rendered(unusable)["invocations"] == [{"executionSuccessful": False, "exitCode": 2}]


def test_batch_is_one_run(report: Report, unusable: Report) -> None:
    batch = Report("fold", tool=report.tool, exit=2, runs=[report, unusable])
    run = rendered(batch)
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]]
    assert uris == ["models/in%20put.onnx", "broken.onnx"]
    assert len({result["partialFingerprints"]["normfold/v1"] for result in run["results"]}) == 2


def test_model_in_memory(report: Report) -> None:
    report.inputs = [{"path": None}]
    run = rendered(report)
    assert run["artifacts"] == []
    assert "index" not in run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]


def test_absolute_path_elsewhere_is_a_file_uri(report: Report, tmp_path: Path) -> None:
    report.inputs[0]["path"] = str(tmp_path / "m.onnx")
    assert rendered(report)["artifacts"][0]["location"]["uri"] == (tmp_path / "m.onnx").as_uri()


def test_absolute_path_below_the_working_folder_is_relative(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report.inputs[0]["path"] = str(tmp_path / "sub" / "m.onnx")
    assert rendered(report)["artifacts"][0]["location"]["uri"] == "sub/m.onnx"


def test_place_where_the_models_part_is_a_logical_location(parted: Report) -> None:
    (result,) = [found for found in rendered(parted)["results"] if found["ruleId"] == "NF217"]
    (location,) = result["locations"][0]["logicalLocations"]
    assert location == {"fullyQualifiedName": "bn1", "kind": "value"}
