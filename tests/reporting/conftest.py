"""Reports to render."""

from __future__ import annotations

from typing import Any

import pytest

from normfold.reporting.report import Finding, GraphNode, Report, Site, SiteGraph, Verification

HOSTILE = "a|b[0]*_<script>alert(1)</script>\x1b[31m\"'&`$(x)`\x00%,:"


def _row(level: str, **numbers: Any) -> dict[str, Any]:
    where = {"output": HOSTILE, "provider": "cpu", "optimizations": level, "status": "pass"}
    return where | {"e0": 1e-7, "e1": 2e-7, "rms0": 1e-8, "rms1": 2e-8, "bound": 4e-7} | numbers


@pytest.fixture
def hostile() -> str:
    """A name that is markup in every format."""
    return HOSTILE


@pytest.fixture
def report() -> Report:
    """A fold of one model with hostile names: something folded, something kept, everything proven."""
    picture = SiteGraph(
        "bn1",
        (
            GraphNode(HOSTILE, "input", role="input"),
            GraphNode("conv1", "Conv", (HOSTILE,), ("8×3×3×3", ""), "changed"),
            GraphNode("bn1", "BatchNormalization", ("conv1",), ("8", "8", "8", "8"), "site"),
            GraphNode("sum", "Add", ("bn1", HOSTILE)),
        ),
        (
            GraphNode(HOSTILE, "input", role="input"),
            GraphNode("bn1", "Conv", (HOSTILE,), ("8×3×3×3", "8"), "target"),
            GraphNode("sum", "Add", ("bn1", HOSTILE)),
        ),
    )
    return Report(
        "fold",
        tool={"name": "normfold", "version": "1.2.3", "onnx": "1"},
        inputs=[{"path": "models/in put.onnx", "bytes": 10, "sha256": "0" * 64}],
        outputs=[{"path": "out.onnx", "bytes": 8, "sha256": "1" * 64}],
        sites=[
            Site("bn1", "batchnorm", "folded", "conv", ("bn1",), nodes=("BatchNormalization",)),
            Site(HOSTILE, "affine", "kept", code="NF105", reason=f"{HOSTILE} is a graph output"),
        ],
        verification=Verification(
            "pass",
            algebra={"sites": 1, "proven": 1, "max_error": 1e-15, "max_ratio_to_bound": 0.01},
            rounding=[_row("off"), _row("on", e1=0.0, rms1=0.0)],
            providers=[
                {"provider": "cpu", "model": "folded", "optimizations": level, "status": "ok", "detail": ""}
                for level in ("off", "on")
            ],
        ),
        timing={"load": 0.25, "total": 1.25},
        summary={"changed": True, "folded": 1, "kept": 1, "nodes": [9, 8]},
        graphs=[picture],
    )


@pytest.fixture
def failed(report: Report) -> Report:
    """The same, not verified: one output is off, and one site was not proven."""
    report.exit = 1
    report.outputs = []
    report.verification.verdict = "fail"
    report.verification.messages = [f"NF203: output {HOSTILE} is off", "NF202: 'bn1' is not proven: no luck"]
    report.verification.rounding[0] |= {"status": "fail", "e1": 1.0}
    report.verification.algebra["reasons"] = {"bn1": "no luck"}
    return report


def _node(place: str, operator: str, inputs: list[str], output: str) -> dict[str, Any]:
    return {"place": place, "operator": operator, "name": "", "inputs": inputs, "outputs": [output]}


@pytest.fixture
def parted(failed: Report) -> Report:
    """The same, with the place where the models part, and how errors are distributed."""
    failed.verification.messages.append("NF217: the models part at 'bn1'")
    failed.verification.located = {
        "value": "bn1",
        "counterpart": "bn1",
        "error": 0.5,
        "bound": 1e-6,
        "agreeing": [HOSTILE],
        "original": [
            _node("before", "Relu", ["x"], HOSTILE),
            _node("here", "Conv", [HOSTILE, "w"], "c"),
            _node("here", "BatchNormalization", ["c", "s"], "bn1"),
        ],
        "folded": [_node("here", "Conv", [HOSTILE, "v"], "bn1"), _node("behind", "Add", ["bn1"], "sum")],
        "from": "run",
        "saved": None,
    }
    edges = [1e-2, 1e-1, 1.0, 10.0]
    failed.verification.rounding[0]["histogram"] = {
        "edges": edges,
        "original": [90, 9, 1, 0, 0],
        "folded": [0, 50, 40, 7, 3],
    }
    return failed


@pytest.fixture
def unusable() -> Report:
    """A model that could not be read."""
    return Report(
        "fold",
        tool={"name": "normfold", "version": "1.2.3"},
        exit=2,
        inputs=[{"path": "broken.onnx"}],
        findings=[Finding("NF902", "error", "broken.onnx: not an ONNX file")],
    )
