"""Networks of norms as ONNX files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.export import Exporter, quiet
from models.norms import SPELLINGS, Norm, Together

CHANNELS = 12


@dataclass(frozen=True)
class Export:
    """One way to export every spelling that it can export.

    Attributes:
        exporter: torch's default exporter or the older one.
        opset: of the file.
        rank: of the inputs.
        groups: G, of ``CHANNELS``.
        dtype: of inputs and parameters.
        dynamic: leave every axis but the channels' open.
    """

    exporter: Exporter
    opset: int
    rank: int
    groups: int
    dtype: torch.dtype
    dynamic: bool

    def __str__(self) -> str:
        sizes = "dynamic" if self.dynamic else "static"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.exporter}-{self.opset}-rank{self.rank}-groups{self.groups}-{dtype}-{sizes}"

    def norms(self) -> list[Norm]:
        """The spellings that there are in this way."""
        return [Norm(n, s, CHANNELS, self.groups, self.rank) for n, s in SPELLINGS.items() if self._has(n)]

    def _has(self, name: str) -> bool:
        spelling = SPELLINGS[name]
        unable = spelling.torchscript == "no" or (spelling.torchscript == "static" and self.dynamic)
        if self.rank not in spelling.ranks or (self.exporter == "torchscript" and unable):
            return False
        if spelling.kind != "group":
            # They know no groups: once is enough.
            return self.groups not in (1, CHANNELS)
        if self.rank == 2 and self.groups == CHANNELS:
            # A group of one element.
            return False
        return {"any": True, "one": self.groups == 1, "each": self.groups == CHANNELS}[spelling.groups]

    def write(self, path: Path) -> tuple[Together, tuple[Tensor, ...]]:
        """Export; returns the network and inputs. Names are ``x0``, ``x1``, … and ``y0``, ``y1``, …"""
        norms = self.norms()
        network = Together(norms).eval().to(self.dtype)
        generator = torch.Generator().manual_seed(self.rank)
        inputs = tuple((torch.randn(n.shape(), generator=generator) * 2 + 1).to(self.dtype) for n in norms)
        names = [f"x{i}" for i in range(len(norms))]
        with quiet():
            if self.exporter == "dynamo":
                dims = {axis: torch.export.Dim(axis, min=2, max=512) for axis in _AXES}
                shapes = tuple({axis: dims[name] for axis, name in n.open_axes.items()} for n in norms)
                torch.onnx.export(
                    network,
                    inputs,
                    path,
                    dynamo=True,
                    external_data=False,
                    opset_version=self.opset,
                    input_names=names,
                    output_names=[f"y{i}" for i in range(len(norms))],
                    dynamic_shapes=(shapes,) if self.dynamic else None,
                    verbose=False,
                )
            else:
                torch.onnx.export(
                    network,
                    inputs,
                    str(path),
                    dynamo=False,
                    opset_version=self.opset,
                    input_names=names,
                    output_names=[f"y{i}" for i in range(len(norms))],
                    dynamic_axes={name: n.open_axes for name, n in zip(names, norms, strict=True)}
                    if self.dynamic
                    else None,
                )
        return network, inputs


_AXES = ("batch", "depth", "height", "width")
