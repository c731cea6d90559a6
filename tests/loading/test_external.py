"""External data must be a plain, complete file inside the model's folder."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from normfold.errors import InputError
from normfold.loading import load


def set_entry(path: Path, key: str, value: str) -> None:
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            break
    else:
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def refused(path: Path, code: str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert "\n" not in message
    for word in ("'w'", *words):
        assert word in message


def test_is_mapped_not_read(external: Path, dense: onnx.ModelProto) -> None:
    loaded = load(external)
    assert loaded.external
    assert loaded.data_files == (external.parent / "weights.bin",)
    assert loaded.size == external.stat().st_size + 40_000
    tensor = loaded.model.graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), onnx.numpy_helper.to_array(dense.graph.initializer[0]))
    assert not tensor.numpy().flags.owndata


def test_relative_path_survives_a_change_of_folder(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(external.parent)
    loaded = load(external.name)
    monkeypatch.chdir("/")
    tensor = loaded.model.graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.numpy().shape == (100, 100)


def test_subfolder(external: Path) -> None:
    (external.parent / "sub").mkdir()
    (external.parent / "weights.bin").rename(external.parent / "sub" / "weights.bin")
    set_entry(external, "location", "sub/weights.bin")
    assert load(external).data_sha256.keys() == {"sub/weights.bin"}


def test_missing(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    refused(external, "NF909", "does not exist")


def test_is_a_folder(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    (external.parent / "weights.bin").mkdir()
    refused(external, "NF909", "regular file")


def test_too_short(external: Path) -> None:
    os.truncate(external.parent / "weights.bin", 39_999)
    refused(external, "NF909", "too short", "39999")


def test_offset_beyond_the_end(external: Path) -> None:
    set_entry(external, "offset", "1")
    refused(external, "NF909", "too short")


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-4"), ("offset", "x"), ("length", "3"), ("location", "")]
)
def test_malformed(external: Path, key: str, value: str) -> None:
    set_entry(external, key, value)
    refused(external, "NF903")


def test_absolute(external: Path) -> None:
    set_entry(external, "location", str(external.parent / "weights.bin"))
    refused(external, "NF910", "absolute")


def test_parent_folder(external: Path) -> None:
    (external.parent / "weights.bin").rename(external.parent.parent / "weights.bin")
    set_entry(external, "location", "../weights.bin")
    refused(external, "NF910", "leaves")


@pytest.mark.parametrize("outside", [False, True])
def test_symbolic_link(external: Path, outside: bool) -> None:
    target = (external.parent.parent if outside else external.parent) / "real.bin"
    (external.parent / "weights.bin").rename(target)
    (external.parent / "weights.bin").symlink_to(target)
    refused(external, "NF910", "symbolic link")


def test_folder_that_is_a_link(external: Path) -> None:
    elsewhere = external.parent.parent / "elsewhere"
    elsewhere.mkdir()
    (external.parent / "weights.bin").rename(elsewhere / "weights.bin")
    (external.parent / "sub").symlink_to(elsewhere)
    set_entry(external, "location", "sub/weights.bin")
    refused(external, "NF910", "symbolic link")


def test_hard_link(external: Path) -> None:
    os.link(external.parent / "weights.bin", external.parent / "other.bin")
    refused(external, "NF910", "hard links")


def test_from_a_stream(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(external.read_bytes())))
    with pytest.raises(InputError) as caught:
        load("-")
    assert caught.value.code == "NF909"


def test_stream(dense: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(dense.SerializeToString())))
    loaded = load("-")
    assert loaded.name == "-"
    assert loaded.path.read_bytes() == dense.SerializeToString()
