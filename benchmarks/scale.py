"""Models of many gigabytes and of many nodes: time and memory of ``fold --no-verify``.

Beside each large model stands what it is measured against: a dense copy of its data file with fsync, and one
SHA-256 of the original and of the copy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks import large
from benchmarks.chains import conv_batchnorm_chain, residual_chain
from benchmarks.processes import MEGABYTE, measured

_CHUNK = 1 << 20
_ALLOWED_MB = 200
_SECONDS = 3600
# The copy, the result, and room for others.
_DISK_FACTOR = 2.2
_CHAINS = {"conv-batchnorm": (conv_batchnorm_chain, 2), "residual": (residual_chain, 3)}


def main(arguments: Sequence[str]) -> int:
    """Measure, print Markdown tables, and write JSON."""
    given = _parser().parse_args(arguments)
    results: dict[str, list[dict[str, Any]]] = {"sizes": [], "nodes": []}

    def keep(kind: str, row: dict[str, Any]) -> None:
        results[kind].append(row)
        if given.json:
            given.json.write_text(json.dumps(results, indent=1) + "\n")

    if given.sizes:
        print(_SIZES_HEADER)
    for size in given.sizes:
        for proof in (False, True) if size == given.proof else (False,):
            row = _large(size, given.folder, proof=proof)
            print(_size_row(row), flush=True)
            keep("sizes", row)
    if given.nodes:
        print(_NODES_HEADER)
    for kind in given.chains:
        for nodes in given.nodes:
            row = _chain(kind, nodes, given.folder)
            print(_node_row(row), flush=True)
            keep("nodes", row)
    return 0


def _fold(source: Path, target: Path, report: Path, *, proof: bool) -> list[str]:
    command = [sys.executable, "-m", "normfold", "fold", "-q", str(source), "-o", str(target)]
    return [*command, "--report", str(report), *(() if proof else ("--no-verify",))]


def _large(gigabytes: float, where: Path | None, *, proof: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        free = shutil.disk_usage(folder).free / 1e9
        if free < _DISK_FACTOR * gigabytes:
            print(f"SKIPPED {gigabytes:g} GB: the disk has {free:.0f} GB left", file=sys.stderr, flush=True)
            return {"gigabytes": gigabytes, "proof": proof, "skipped": f"{free:.0f} GB of disk left"}
        source, report = large.write(Path(folder), gigabytes), Path(folder) / "report.json"
        data = source.with_name(f"{source.name}.data")
        copy = None if proof else _copy_and_digest(data)
        usage = measured(_fold(source, Path(folder) / "out.onnx", report, proof=proof), seconds=_SECONDS)
        told = json.loads(report.read_text())
        return {
            "gigabytes": data.stat().st_size / 1e9,
            "proof": proof,
            "exit": usage.code,
            "wall": usage.wall,
            "processor": usage.processor,
            "copy": copy,
            "anonymous": usage.anonymous,
            "total": usage.total,
            "largest": large.largest_bytes() / MEGABYTE,
            "timing": told["timing"],
            "folded": told["summary"].get("folded"),
            "verdict": told["verification"]["verdict"],
        }


def _copy_and_digest(data: Path) -> dict[str, float]:
    """Wall and processor seconds of a dense copy with fsync and a SHA-256 of both files."""
    copy = data.with_suffix(".copy")
    wall, processor = time.perf_counter(), time.process_time()
    with data.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
        target.flush()
        os.fsync(target.fileno())
    for path in (data, copy):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    taken = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    copy.unlink()
    return taken


def _chain(kind: str, nodes: int, where: Path | None) -> dict[str, Any]:
    make, per_block = _CHAINS[kind]
    with tempfile.TemporaryDirectory(dir=where) as folder:
        source, report = Path(folder) / "in.onnx", Path(folder) / "report.json"
        ir.save(make(nodes // per_block), source)
        usage = measured(_fold(source, Path(folder) / "out.onnx", report, proof=False), seconds=_SECONDS)
        told = json.loads(report.read_text()) if report.exists() else {"timing": {}}
    return {
        "chain": kind,
        "nodes": nodes,
        "exit": usage.code,
        "wall": usage.wall,
        "processor": usage.processor,
        "anonymous": usage.anonymous,
        "timing": told["timing"],
    }


_SIZES_HEADER = (
    "| GB | proof | wall s | processor s | copy and digests: wall, processor s | ratio: wall, processor "
    f"| anonymous MB (allowed: {_ALLOWED_MB} + largest) | total MB |\n|---|---|---|---|---|---|---|---|"
)
_NODES_HEADER = (
    "\n| chain | nodes | processor s | ms per node | anonymous MB "
    "| share of load, prepare, examine, fold, save |\n"
    "|---|---|---|---|---|---|"
)


def _size_row(row: dict[str, Any]) -> str:
    if "skipped" in row:
        return f"| {row['gigabytes']:g} | {row['proof']} | skipped: {row['skipped']} | | | | | |"
    copy = row["copy"]
    beside = "–" if copy is None else f"{copy['wall']:.1f}, {copy['processor']:.1f}"
    ratio = (
        "–"
        if copy is None
        else f"{row['wall'] / copy['wall']:.2f}, {row['processor'] / copy['processor']:.2f}"
    )
    return (
        f"| {row['gigabytes']:.2f} | {row['verdict'] or 'no'} | {row['wall']:.1f} | {row['processor']:.1f} "
        f"| {beside} | {ratio} | {row['anonymous']:.0f} ({_ALLOWED_MB + row['largest']:.0f}) "
        f"| {row['total']:.0f} |"
    )


def _node_row(row: dict[str, Any]) -> str:
    timing = row["timing"]
    whole = timing.get("total") or 1.0
    shares = ", ".join(
        f"{timing.get(phase, 0.0) / whole:.0%}" for phase in ("load", "prepare", "examine", "fold", "stage")
    )
    return (
        f"| {row['chain']} | {row['nodes']} | {row['processor']:.1f} "
        f"| {1000 * row['processor'] / row['nodes']:.2f} | {row['anonymous']:.0f} | {shares} |"
    )


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--sizes", type=_numbers, default=[1, 4, 10], help="gigabytes, such as 1,4,10")
    parser.add_argument("--proof", type=float, default=1, help="size that is also proven; 0 for none")
    parser.add_argument(
        "--nodes",
        type=lambda text: list(map(int, _numbers(text))),
        default=[1000, 10_000, 100_000],
        help="lengths of the chains",
    )
    parser.add_argument("--chains", nargs="*", choices=list(_CHAINS), default=["conv-batchnorm"])
    parser.add_argument("--folder", type=Path, help="where models are made; else the temporary folder")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser
