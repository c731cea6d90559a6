"""A model however the caller has it: a path, a protobuf or an onnx_ir model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from normfold.errors import InputError, OutputError
from normfold.loading.load import Loaded, from_proto, load
from normfold.loading.save import Staged, check, stage, stage_copy
from normfold.loading.stream import model_sha256
from normfold.urls import is_url, plain_path

ModelLike = str | os.PathLike[str] | onnx.ModelProto | ir.Model


@dataclass(frozen=True)
class Source:
    """A model and, if it came from a file, that file.

    Attributes:
        model: the model. Nobody changes it.
        loaded: the file it came from, ``None`` for a model in memory.
    """

    model: ir.Model
    loaded: Loaded | None

    @property
    def origin(self) -> Path | ir.Model:
        """What others should open: the file where there is one, so that weights are mapped, not copied."""
        return self.loaded.path if self.loaded is not None else self.model

    def describe(self) -> dict[str, Any]:
        """Returns the entry of the report's ``inputs``."""
        if self.loaded is not None:
            return self.loaded.describe()
        try:
            sha256, size = model_sha256(self.model)
        except OutputError:
            # Above the size of one protobuf there is no canonical encoding to take a digest of.
            return {"path": None}
        return {"path": None, "bytes": size, "sha256": sha256}

    def is_file(self, path: str | os.PathLike[str]) -> bool:
        """Whether ``path`` is the very file that the model came from."""
        name = os.fspath(path)
        if is_url(name):
            return self.loaded is not None and self.loaded.name == name
        try:
            return self.loaded is not None and self.loaded.path.samefile(plain_path(name))
        except OSError:
            return False

    def map_weights(self) -> None:
        """Maps all external data now, so that the model stays usable when its files are replaced."""
        for top in (self.model.graph, *(function.graph for function in self.model.functions.values())):
            for graph in (top, *top.subgraphs()):
                for value in graph.initializers.values():
                    if isinstance(value.const_value, ir.ExternalTensor):
                        value.const_value.numpy()

    def stage(self, model: ir.Model, out: str | os.PathLike[str], *, changed: bool) -> Staged:
        """Stages ``model``, which was made from this one, or a copy of the file where nothing changed."""
        if not changed and self.loaded is not None:
            return stage_copy(self.loaded, out)
        return stage(model, out, like=self.loaded)


def open_source(model: ModelLike) -> Source:
    """Loads a file, or takes a model in memory without ever changing it.

    Args:
        model: path or URL (``-`` for standard input), protobuf or onnx_ir model.

    Raises:
        InputError: NF901 to NF913.
        MissingDependency: a URL needs a package.
    """
    if isinstance(model, ir.Model):
        check(model)
        return Source(model, None)
    if isinstance(model, onnx.ModelProto):
        own = onnx.ModelProto()
        own.CopyFrom(model)
        return Source(from_proto(own, None)[0], None)
    if isinstance(model, (str, os.PathLike)):
        loaded = load(model)
        return Source(loaded.model, loaded)
    raise InputError(
        f"a model is a path, an onnx.ModelProto or an onnx_ir.Model, not {type(model).__name__}", code="NF901"
    )
