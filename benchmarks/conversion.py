"""Time and memory of whole conversions beside other optimisers: one process each, verification excluded."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh

from benchmarks.peer_tools import TOOLS
from benchmarks.processes import MEGABYTE, measured

_SCRIPT = Path(__file__).with_name("peer_tools.py")
_TOOL_SECONDS = 300
_LARGE_MB = 10
_SLACK_SECONDS = 0.1
OWN = "normfold"
_TIMED = ("onnxsim", "onnxslim")


def main(arguments: Sequence[str]) -> int:
    """Measure, print a Markdown table and what it says, and write JSON."""
    given = _parser().parse_args(arguments)
    tools = [OWN, *(given.tools if given.python else ())]
    print(f"| model | MB | {' | '.join(tools)} |\n|---|---|{'---|' * len(tools)}")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source in _sources(given.models, Path(folder), given.minimum):
            row: dict[str, Any] = {"model": name, "bytes": source.stat().st_size}
            row |= {tool: _conversion(tool, source, Path(folder), given) for tool in tools}
            results.append(row)
            cells = (_cell(row[tool]) for tool in tools)
            print(f"| {name} | {row['bytes'] / MEGABYTE:.2f} | {' | '.join(cells)} |", flush=True)
            if given.json:
                told = {"repeats": given.repeats, "models": results}
                given.json.write_text(json.dumps(told, indent=1) + "\n")
    if given.python:
        print("\n" + "\n".join(_verdicts(results)))
    return 0


def _conversion(tool: str, source: Path, folder: Path, given: argparse.Namespace) -> dict[str, float] | None:
    """Processor seconds (the least of several runs) and peak memory; ``None`` where the tool fails."""
    target = folder / f"{tool}.onnx"
    if tool == OWN:
        command = [given.own, "-m", "normfold", "fold", "--no-verify", "-q", str(source), "-o", str(target)]
    else:
        command = [given.python, str(_SCRIPT), tool, str(source), str(target)]
    runs = [measured(command, seconds=_TOOL_SECONDS, sampled=False) for _ in range(given.repeats)]
    watched = measured(command, seconds=_TOOL_SECONDS)
    if any(run.code for run in (*runs, watched)) or not target.exists():
        return None
    target.unlink()
    return {
        "processor": min(run.processor for run in runs),
        "wall": min(run.wall for run in runs),
        "total": watched.total,
        "anonymous": watched.anonymous,
    }


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "failed"
    return f"{found['processor']:.2f} s, {found['anonymous']:.0f}/{found['total']:.0f} MB"


def _verdicts(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the targets are missed."""
    large = [row for row in results if row["bytes"] >= _LARGE_MB * MEGABYTE]
    small = [row for row in results if row["bytes"] < _LARGE_MB * MEGABYTE]
    for tool in _TIMED:
        slower = [r["model"] for r in large if r.get(tool) and r[OWN]["processor"] >= r[tool]["processor"]]
        yield f"of {len(large)} models from {_LARGE_MB} MB on, not faster than {tool}: {_names(slower)}"
    for kind in ("total", "anonymous"):
        heavier = [r["model"] for r in large if any(r.get(t) and r[OWN][kind] > r[t][kind] for t in TOOLS)]
        yield f"there, not the smallest peak of {kind} memory: {_names(heavier)}"
    late = [
        row["model"]
        for row in small
        if row.get("onnxslim") and row[OWN]["processor"] > row["onnxslim"]["processor"] + _SLACK_SECONDS
    ]
    yield f"of {len(small)} smaller models, above onnxslim + {_SLACK_SECONDS} s: {_names(late)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _sources(names: Sequence[str], folder: Path, minimum: float) -> Iterator[tuple[str, Path]]:
    """Exports of the zoo, trained models from wheels, the light models of the onnx wheel, one of 100 MB."""
    for name, find in _every(folder):
        if names and name not in names:
            continue
        try:
            path = find()
        except Exception as error:
            print(f"| {name} | SKIPPED: {' '.join(str(error).split())[:80]} |", file=sys.stderr)
            continue
        if path.stat().st_size >= minimum * MEGABYTE:
            yield name, path


def _every(folder: Path) -> Iterator[tuple[str, Any]]:
    from models import real
    from models.export import export
    from models.zoo import ZOO

    yield "resnet-100mb", lambda: _residual_network(folder / "resnet.onnx")
    yield from ((name, lambda name=name: real.path(name)) for name in real.available())
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    yield from ((path.stem, lambda path=path: path) for path in sorted(light.glob("*.onnx")))
    yield from ((name, lambda name=name: export(name)) for name in sorted(ZOO))


def _residual_network(path: Path) -> Path:
    """The layers of a ResNet-50, 102 MB of random weights in one file, its BatchNormalizations not folded."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def tensor(array: np.ndarray) -> str:
        tensors.append(onnx.numpy_helper.from_array(array.astype(np.float32), f"t{len(tensors)}"))
        return tensors[-1].name

    def node(op_type: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(oh.make_node(op_type, inputs, [f"v{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def conv(x: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        weight = tensor(rng.standard_normal((outputs, inputs, kernel, kernel)) / (inputs * kernel**2) ** 0.5)
        y = node("Conv", x, weight, pads=[kernel // 2] * 4, strides=[stride] * 2)
        return node("BatchNormalization", y, *(tensor(rng.uniform(0.5, 1.5, outputs)) for _ in range(4)))

    x, channels = node("Relu", conv("image", 3, 64, 7, 2)), 64
    x = node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = node("Relu", conv(x, channels, width, 1))
            y = node("Relu", conv(y, width, width, 3, stride))
            y = conv(y, width, 4 * width, 1)
            short = x if block else conv(x, channels, 4 * width, 1, stride)
            x, channels = node("Relu", node("Add", y, short)), 4 * width
    x = node("Flatten", node("GlobalAveragePool", x))
    x = node(
        "Gemm", x, tensor(rng.standard_normal((1000, channels)) / channels), tensor(np.zeros(1000)), transB=1
    )
    image = oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 224, 224])
    scores = oh.make_tensor_value_info(x, onnx.TensorProto.FLOAT, [1, 1000])
    graph = oh.make_graph(nodes, "resnet", [image], [scores], tensors)
    onnx.save(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8), path)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks conversion", description=__doc__)
    parser.add_argument("models", nargs="*", help="names; all without any")
    parser.add_argument(
        "--python",
        default=os.environ.get("PEER_PYTHON"),
        help="interpreter of an environment with the other tools, or $PEER_PYTHON; else none is run",
    )
    parser.add_argument("--tools", nargs="*", choices=list(TOOLS), default=list(TOOLS), help="which of them")
    parser.add_argument("--own", default=sys.executable, help="interpreter that has normfold; else this one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minimum", type=float, default=0, help="leave out models below so many MB")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser
