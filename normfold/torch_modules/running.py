"""Runs a module in ``eval()`` and in ``train()``, and leaves it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from normfold.errors import InputError
from normfold.torch_modules.messages import first_line


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Puts back modes, buffers, gradients and random states, whatever happens."""
    modes = {part: part.training for part in module.modules()}
    buffers = {part: dict(part._buffers) for part in module.modules()}
    try:
        contents = {buffer: buffer.detach().clone() for buffer in module.buffers()}
    except ValueError as error:  # a lazy module
        raise InputError(f"the module has never been run: {first_line(error)}") from error
    gradients = {part: part.grad for part in module.parameters()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for part, training in modes.items():
                part.training = training
            for part, held in buffers.items():
                # Forward may have registered others, or put new tensors in their place.
                part._buffers.clear()
                part._buffers.update(held)
            with torch.no_grad():
                for buffer, content in contents.items():
                    if not torch.equal(buffer, content):
                        buffer.copy_(content)
            for parameter, gradient in gradients.items():
                parameter.grad = gradient


def as_tensors(inputs: Any) -> tuple[torch.Tensor, ...]:
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    parts = inputs if isinstance(inputs, tuple | list) else (inputs,)
    try:
        return tuple(part if isinstance(part, torch.Tensor) else torch.as_tensor(part) for part in parts)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the inputs are no tensors: {first_line(error)}") from error


def run(module: nn.Module, args: tuple[torch.Tensor, ...]) -> list[np.ndarray[Any, Any]]:
    try:
        with torch.no_grad():
            return [as_array(tensor) for tensor in _flattened(module(*args))]
    except Exception as error:  # the user's own code
        raise InputError(f"the module does not run on the inputs: {first_line(error)}") from error


def run_training(
    module: nn.Module, args: tuple[torch.Tensor, ...]
) -> tuple[list[np.ndarray[Any, Any]] | None, str | None]:
    """Batch statistics alone: everything but normalisations stays in evaluation."""
    try:
        module.train()
        for part in module.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd):
                part.training = False
        with torch.no_grad():
            return [as_array(tensor) for tensor in _flattened(module(*args))], None
    except Exception as error:  # torch refuses to train on a single value per channel
        return None, first_line(error)
    finally:
        module.eval()


def _flattened(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in _flattened(part)]
    return []


def as_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy().copy()


def as_native(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """In its own type, which numpy may not have."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(ir.DataType.BFLOAT16.numpy())
    return tensor.numpy()
