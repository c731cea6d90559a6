"""Folded models beside what other optimisers make of the same files: what is left, error, inference time."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks.peer_tools import TOOLS
from benchmarks.timing import interleaved, ratio, session
from models import real
from models.export import export
from models.zoo import ZOO
from normfold.evaluation import Evaluator, NotCovered
from normfold.folding import fold_model

_SCRIPT = Path(__file__).with_name("peer_tools.py")
_TOOL_SECONDS = 120
_ELEMENTWISE = {"Mul", "Add", "Sub", "Div"}


def main(arguments: Sequence[str]) -> int:
    """Measure, print a Markdown table, and write JSON."""
    given = _parser().parse_args(arguments)
    results = []
    for name in given.models or [*sorted(ZOO), *real.available()]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = measure(name, Path(folder), given.python, given.rounds)
            except real.Unavailable as error:
                print(f"| {name} | {error} |")
                continue
        results.append(result)
        if len(results) == 1:
            print(_HEADER)
        print(_row(result), flush=True)
        if given.json:
            given.json.write_text(json.dumps({"rounds": given.rounds, "models": results}, indent=1) + "\n")
    if results:
        print(_summary(results))
    return int(any(result["folded/original"]["lower"] > 1 for result in results))


def measure(name: str, folder: Path, python: str | None, rounds: int) -> dict[str, Any]:
    """Everything about one model; ``python`` is an interpreter that has the other tools."""
    source, feeds = _source(name)
    paths = {"original": source, "folded": folder / "folded.onnx"}
    ir.save(fold_model(ir.load(source)).model, paths["folded"])
    for tool in TOOLS if python else ():
        target = folder / f"{tool}.onnx"
        command = [str(python), str(_SCRIPT), tool, str(source), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TOOL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0 and target.exists():
            paths[tool] = target
    sessions, failed = {}, []
    for who, path in paths.items():
        try:
            sessions[who] = session(path)
        except Exception:
            failed.append(who)
    truth = _truth(source, feeds)
    times = interleaved(sessions, feeds, rounds)
    medians = {who: float(np.median(seconds)) for who, seconds in times.items()}
    peers = {who: seconds for who, seconds in medians.items() if who not in ("original", "folded")}
    best = min(peers, key=lambda who: peers[who], default=None)
    return {
        "model": name,
        "variants": {
            who: _contents(paths[who])
            | {"error": _error(sessions[who], feeds, truth), "seconds": medians[who]}
            for who in sessions
        },
        "failed": failed + [tool for tool in TOOLS if python and tool not in paths],
        "folded/original": dataclasses.asdict(ratio(times["folded"], times["original"])),
        "best peer": best,
        "folded/best": None if best is None else dataclasses.asdict(ratio(times["folded"], times[best])),
    }


def _source(name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """The model file, and an input."""
    if name in ZOO:
        entry = ZOO[name]
        return export(name), {n: v.numpy() for n, v in zip(entry.inputs, entry.example(seed=1), strict=True)}
    path, spec = real.path(name), real.available()[name]
    rng = np.random.default_rng(1)
    feeds = {}
    for value in onnx.load(path).graph.input:
        if value.name not in spec.shapes:
            continue
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = spec.shapes[value.name]
        drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[value.name] = np.asarray(spec.values.get(value.name, drawn), dtype)
    return path, feeds


def _truth(source: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs in float64; none where an operator is not covered."""
    try:
        return Evaluator(ir.load(source)).run(feeds)
    except NotCovered:
        return {}


def _contents(path: Path) -> dict[str, int]:
    model = ir.load(path)
    nodes = [node for graph in model.graphs() for node in graph]
    affines = [
        node
        for node in nodes
        if node.op_type in _ELEMENTWISE and any(v is not None and v.is_initializer() for v in node.inputs)
    ]
    batchnorms = [node for node in nodes if node.op_type == "BatchNormalization"]
    return {"batchnorms": len(batchnorms), "affines": len(affines), "nodes": len(nodes)}


def _error(one: Any, feeds: Mapping[str, np.ndarray], truth: Mapping[str, Any]) -> float:
    """Largest error of any output, relative to the output's largest value; NaN without the truth."""
    worst = 0.0 if truth else math.nan
    for output, value in zip(one.get_outputs(), one.run(None, feeds), strict=True):
        if output.name not in truth:
            continue
        exact = np.asarray(truth[output.name], dtype=np.float64)
        worst = max(worst, float(np.abs(value - exact).max() / (np.abs(exact).max() or 1.0)))
    return worst


_HEADER = (
    "| model | BN: original, folded, best peer | affines | nodes | error: original, folded "
    "| folded / original | folded / best peer | best peer |\n|---|---|---|---|---|---|---|---|"
)


def _row(result: Mapping[str, Any]) -> str:
    shown = ["original", "folded", *([result["best peer"]] if result["best peer"] else [])]
    found = [result["variants"][who] for who in shown]
    counts = [", ".join(str(v[kind]) for v in found) for kind in ("batchnorms", "affines", "nodes")]
    errors = ", ".join(f"{v['error']:.0e}" for v in found[:2])
    cells = [
        result["model"],
        *counts,
        errors,
        _ratio(result["folded/original"]),
        _ratio(result["folded/best"]),
    ]
    return f"| {' | '.join([*cells, result['best peer'] or '–'])} |"


def _ratio(interval: Mapping[str, float] | None) -> str:
    return "–" if interval is None else "{median:.2f} ({lower:.2f} to {upper:.2f})".format(**interval)


def _summary(results: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for key in ("folded/original", "folded/best"):
        medians = [result[key]["median"] for result in results if result[key] is not None]
        if medians:
            mean = math.exp(sum(map(math.log, medians)) / len(medians))
            slower = [r["model"] for r in results if r[key] is not None and r[key]["lower"] > 1]
            lines.append(f"{key}: geometric mean {mean:.3f}; slower: {', '.join(slower) or 'none'}")
    return "\n" + "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("models", nargs="*", help="names of the zoo or of models.real; all without any")
    parser.add_argument(
        "--python",
        default=os.environ.get("PEER_PYTHON"),
        help="interpreter of an environment with the other tools, or $PEER_PYTHON; else none is run",
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser
