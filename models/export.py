"""ONNX files of the networks in the zoo, made once per version of the sources and kept in the cache folder.

``python -m models.export NAME [NAME ...]`` writes them into the current folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import itertools
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

from models.real import cache_folder
from models.zoo import BATCH, ZOO, Entry

Exporter = Literal["dynamo", "torchscript"]


class Unexportable(RuntimeError):
    """Torch cannot export this network in this way."""


def variants(name: str) -> list[tuple[Exporter, bool, bool]]:
    """Every (exporter, dynamic, keep_bn) that torch can do for a network: ``export(name, *variant)``."""
    every: Iterator[tuple[Exporter, bool, bool]] = itertools.product(
        get_args(Exporter), (False, True), (False, True)
    )
    return [variant for variant in every if _obstacle(ZOO[name], *variant) is None]


def export(
    name: str,
    exporter: Exporter = "dynamo",
    dynamic: bool = False,
    keep_bn: bool = False,
    opset: int | None = None,
    path: Path | None = None,
    *,
    merged: bool = False,
) -> Path:
    """Write a network of the zoo as a single ONNX file.

    Args:
        name: key of :data:`models.zoo.ZOO`.
        exporter: torch's default exporter or the older TorchScript one.
        dynamic: leave the batch open, and the other axes that the entry names; else everything is static.
        keep_bn: keep the BatchNorm nodes that the exporter would fold into the layer in front of them.
        opset: ONNX opset, or the exporter's default.
        path: where to; without it, a file in the cache that is made only if it is not there yet.
        merged: export the network with its branches merged at source level.

    Returns:
        The path of the file. A file of the cache is shared: do not write to it.

    Raises:
        KeyError: no such network.
        ValueError: no such exporter.
        Unexportable: the exporter is known to fail on this network.
    """
    if exporter not in get_args(Exporter):
        raise ValueError(f"no exporter {exporter!r}: use one of {', '.join(get_args(Exporter))}")
    entry = ZOO[name]
    obstacle = _obstacle(entry, exporter, dynamic, keep_bn)
    if obstacle is not None:
        raise Unexportable(f"{name} by the {exporter} exporter: {obstacle}")
    target = path
    if target is None:
        traits = [exporter, "dynamic" if dynamic else "static"]
        traits += ["merged"] * merged + ["bn"] * keep_bn + [f"opset{opset}"] * (opset is not None)
        target = cache_folder() / "zoo" / _source_hash() / f"{name}-{'-'.join(traits)}.onnx"
        if target.is_file():
            return target
    if path is None and not target.parent.exists():
        _drop_old(target.parent.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    network = entry.merged() if merged else entry.build()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        written = Path(folder) / "model.onnx"
        with quiet():
            write = _write_dynamo if exporter == "dynamo" else _write_torchscript
            write(network, entry, written, dynamic, keep_bn, opset)
        # Atomic, so that tests running in parallel never see half a file.
        written.replace(target)
    return target


def _obstacle(entry: Entry, exporter: Exporter, dynamic: bool, keep_bn: bool) -> str | None:
    traits = ["dynamic"] * dynamic + ["bn"] * keep_bn
    return next(
        (entry.unexportable[exporter, trait] for trait in traits if (exporter, trait) in entry.unexportable),
        None,
    )


def _write_dynamo(
    network: torch.nn.Module, entry: Entry, path: Path, dynamic: bool, keep_bn: bool, opset: int | None
) -> None:
    shapes = {
        name: {axis: torch.export.Dim(label) for axis, label in axes.items()}
        for name, axes in entry.dynamic_axes().items()
    }
    torch.onnx.export(
        network,
        # A size of 1 would be taken for a constant.
        entry.example(batch=2 if dynamic else 1),
        path,
        dynamo=True,
        external_data=False,
        input_names=list(entry.inputs),
        output_names=list(entry.outputs),
        dynamic_shapes=tuple(shapes.values()) if dynamic else None,
        opset_version=opset,
        optimize=not keep_bn,
        verbose=False,
    )


def _write_torchscript(
    network: torch.nn.Module, entry: Entry, path: Path, dynamic: bool, keep_bn: bool, opset: int | None
) -> None:
    # PRESERVE keeps BatchNorm only because the network is in evaluation mode; on one in training mode the
    # exporter would update the running statistics with the example inputs.
    mode = torch.onnx.TrainingMode.PRESERVE if keep_bn else torch.onnx.TrainingMode.EVAL
    axes = {**entry.dynamic_axes(), **{name: {0: BATCH} for name in entry.outputs}}
    torch.onnx.export(
        network,
        entry.example(batch=2 if dynamic else 1),
        str(path),
        dynamo=False,
        training=mode,
        input_names=list(entry.inputs),
        output_names=list(entry.outputs),
        dynamic_axes=axes if dynamic else None,
        opset_version=opset,
    )


def _drop_old(folder: Path) -> None:
    """Remove what was exported from sources that are no longer there; a week leaves other checkouts alone."""
    for exports in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be dropping it
            if exports.stat().st_mtime < time.time() - 7 * 24 * 3600:
                shutil.rmtree(exports, ignore_errors=True)


@functools.cache
def _source_hash() -> str:
    """Changes with any source of this package, because any may change what is exported, and with torch."""
    digest = hashlib.sha256(torch.__version__.encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk a lot: progress on stdout, deprecations, notes on absent packages."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as sink,
            contextlib.redirect_stdout(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write networks of the zoo as ONNX into the current folder.")
    parser.add_argument("names", nargs="+", choices=sorted(ZOO), metavar="NAME", help=", ".join(sorted(ZOO)))
    parser.add_argument("--exporter", choices=get_args(Exporter), default="dynamo")
    parser.add_argument("--dynamic", action="store_true", help="leave the batch open")
    parser.add_argument("--keep-bn", action="store_true", help="keep BatchNorm nodes that exporters fold")
    parser.add_argument("--opset", type=int)
    given = parser.parse_args()
    for name in given.names:
        target = Path(f"{name}.onnx")
        export(name, given.exporter, given.dynamic, given.keep_bn, given.opset, target)
        print(target)


if __name__ == "__main__":
    main()
