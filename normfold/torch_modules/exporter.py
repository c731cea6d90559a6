"""A module written as an ONNX graph by torch's own exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from normfold.errors import InputError
from normfold.torch_modules.messages import first_line


def to_onnx(module: nn.Module, args: Sequence[Any], **options: Any) -> ir.Model:
    """Exports by torch's default exporter, as the module stands.

    Raises:
        InputError: the module cannot be exported.
    """
    quiet = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(quiet),
            _without_remarks(),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(module, tuple(args), dynamo=True, verbose=False, **options)
    except Exception as error:  # the exporter has no common base
        raise InputError(f"torch cannot export the module: {first_line(_root(error))}") from error
    if program is None:
        raise InputError("torch did not return an exported program")
    model = ir.from_proto(program.model_proto)
    for node in model.graph.all_nodes():
        # It names source files of the exporting machine.
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    return model


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Torch logs which packages it does without, and its inner steps where an export fails."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _root(error: BaseException) -> BaseException:
    """What an exporter's error was raised from: its own first line names a step, not the trouble."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
