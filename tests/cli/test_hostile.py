"""Models that mean harm: one clear line and exit code 2, whatever they try, and nothing beside the output."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

Run = Callable[..., Any]


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    encoded = bytearray()
    for part in (number << 3 | 2, len(content)):
        while part > 0x7F:
            encoded.append(part & 0x7F | 0x80)
            part >>= 7
        encoded.append(part)
    return bytes(encoded) + content


def nested(depth: int) -> bytes:
    """An If in an If in an If …: made from the inside, since protobuf itself would not go so deep."""

    def body(name: str, operator: bytes) -> bytes:
        return (
            operator
            + field(2, b"g")
            + field(12, helper.make_tensor_value_info(name, 1, [1]).SerializeToString())
        )

    def identity(name: str) -> bytes:
        return body(name, field(1, helper.make_node("Identity", ["x"], [name]).SerializeToString()))

    graph = identity("y0")
    for level in range(1, depth + 1):
        branches = (("then_branch", graph), ("else_branch", identity(f"e{level}")))
        node = field(1, b"c") + field(2, f"y{level}".encode()) + field(4, b"If")
        for name, inside in branches:
            node += field(5, field(1, name.encode()) + field(6, inside) + bytes([0xA0, 0x01, 5]))
        graph = body(f"y{level}", field(1, node))
    for name, kind, shape in (("x", 1, [1]), ("c", 9, [])):
        graph += field(11, helper.make_tensor_value_info(name, kind, shape).SerializeToString())
    return bytes([8, 8]) + field(7, graph) + field(8, bytes([0x10, 17]))


@pytest.fixture
def proto(model: Path) -> onnx.ModelProto:
    return onnx.load(model)


@pytest.fixture
def refused(run: Run, model: Path, tmp_path: Path) -> Callable[..., str]:
    """Folds what ``model`` has become; gives the line, once nothing else was left behind."""

    def fold(code: str, content: bytes | None = None) -> str:
        if content is not None:
            model.write_bytes(content)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "--no-verify")
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.error.startswith(f"normfold: error {code}: {model}: ")
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return str(outcome.error)

    return fold


class TestDepth:
    def test_some(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "deep.onnx").write_bytes(nested(20))
        assert run("fold", tmp_path / "deep.onnx", "--check", "--no-verify").code == 0

    @pytest.mark.parametrize("depth", [100, 1000])
    def test_beyond_what_protobuf_decodes(self, refused: Callable[..., str], depth: int) -> None:
        refused("NF902", nested(depth))


class TestDims:
    @pytest.mark.parametrize(
        "dims", [[-2, 2, 1, 1], [2**62, 2**62, 4], [2**40, 2**40], [0, 2**63 - 1], [2**31]]
    )
    @pytest.mark.parametrize("raw", [False, True])
    def test_of_a_weight(
        self, proto: onnx.ModelProto, refused: Callable[..., str], dims: list[int], raw: bool
    ) -> None:
        weight = proto.graph.initializer[0]
        if raw:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight), "w"))
        weight.dims[:] = dims
        refused("NF903", proto.SerializeToString())

    @pytest.mark.parametrize("dims", [[2**62, 2**62], [2**31, 2**31, 2], [-5, 2]])
    def test_of_an_external_weight(
        self, proto: onnx.ModelProto, refused: Callable[..., str], tmp_path: Path, dims: list[int]
    ) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(16))
        weight = proto.graph.initializer[0]
        weight.Clear()
        weight.name, weight.data_type, weight.data_location = "w", TensorProto.FLOAT, TensorProto.EXTERNAL
        weight.dims[:] = dims
        weight.external_data.add(key="location", value="w.bin")
        model = proto.SerializeToString()
        assert "'w'" in refused("NF903" if dims[0] < 0 else "NF909", model)

    @pytest.mark.parametrize("size", [-1, 0, 2**63 - 1])
    def test_of_an_input_are_nobodys_memory(
        self, run: Run, proto: onnx.ModelProto, model: Path, tmp_path: Path, size: int
    ) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = size
        proto.graph.output[0].type.tensor_type.shape.dim[2].dim_value = size
        model.write_bytes(proto.SerializeToString())
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "--no-verify")
        assert outcome.code in (0, 2)
        assert outcome.err == "" or outcome.error.startswith("normfold: error NF903")


class TestFiles:
    def test_above_the_limit_of_protobuf(self, refused: Callable[..., str], model: Path) -> None:
        os.truncate(model, 2**31 + 5)
        assert "2 GB" in refused("NF902")

    def test_endless(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(import_module("normfold.loading.load"), "PROTOBUF_LIMIT", 10_000_000)
        outcome = run("fold", "/dev/zero", "-o", tmp_path / "out.onnx")
        assert outcome.code == 2
        assert "2 GB" in outcome.error

    def test_a_name_that_is_not_utf8(self, run: Run, model: Path, tmp_path: Path) -> None:
        name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.onnx")
        model.rename(name)
        outcome = run("fold", name, "-o", f"{tmp_path}/", "--no-verify", "--format", "json")
        assert outcome.code == 0
        assert outcome.report["summary"]["changed"]
        out = os.fsdecode(os.fsencode(tmp_path) + b"/\xfd.onnx")
        (tmp_path / "broken.onnx").write_bytes(b"no model")
        (tmp_path / "broken.onnx").rename(out)
        assert run("inspect", out).error.isprintable()

    def test_a_model_behind_a_link_is_that_model(self, run: Run, model: Path, tmp_path: Path) -> None:
        (tmp_path / "link.onnx").symlink_to(model)
        before = model.read_bytes()
        assert run("fold", tmp_path / "link.onnx", "-o", tmp_path / "out.onnx", "--no-verify").code == 0
        assert model.read_bytes() == before

    def test_a_link_that_leads_nowhere(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "link.onnx").symlink_to("nowhere")
        outcome = run("fold", tmp_path / "link.onnx", "-o", tmp_path / "out.onnx")
        assert outcome.code == 2
        assert "NF901" in outcome.error

    @pytest.mark.parametrize("where", ["file", "folder"])
    def test_data_behind_a_link(
        self, refused: Callable[..., str], model: Path, tmp_path: Path, where: str
    ) -> None:
        secret = tmp_path / "secret"
        secret.mkdir()
        dense = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> '
            "g (float[N, 40] x) => (float[N, 40] y) { y = MatMul(x, w) }"
        )
        weight = np.ones((40, 40), np.float32)
        dense.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        location = "w.bin" if where == "file" else "data/w.bin"
        (secret / "w.bin").write_bytes(weight.tobytes())
        (tmp_path / location).parent.mkdir(exist_ok=True)
        if where == "file":
            (tmp_path / location).symlink_to(secret / "w.bin")
        else:
            (tmp_path / "data").rmdir()
            (tmp_path / "data").symlink_to(secret)
        tensor = dense.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        assert "symbolic link" in refused("NF910", dense.SerializeToString())


class TestNames:
    @pytest.mark.parametrize("name", ["../../escape", "a/b", "\x1b[31m", "a\nb", "", "x" * 5000, "é🙂"])
    def test_of_values_reach_no_file_and_no_terminal(
        self, run: Run, proto: onnx.ModelProto, model: Path, tmp_path: Path, name: str
    ) -> None:
        proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = name or "c"
        proto.graph.name = proto.graph.node[0].name = name or "g"
        model.write_bytes(proto.SerializeToString())
        outcome = run("fold", model, "-o", tmp_path / "out.onnx", "--no-verify", "-v")
        assert outcome.code == 0
        assert all(char.isprintable() for line in outcome.out.splitlines() for char in line)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]

    def test_twice(self, proto: onnx.ModelProto, refused: Callable[..., str]) -> None:
        proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "y"
        assert "'y'" in refused("NF908", proto.SerializeToString())
