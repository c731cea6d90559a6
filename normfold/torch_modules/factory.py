"""A module made from ``package.module:factory``, and its weights."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import torch
from torch import nn

from normfold.errors import InputError
from normfold.torch_modules.messages import first_line


def load_module(factory: str, weights: str | os.PathLike[str] | None = None) -> nn.Module:
    """Makes a module from ``"package.module:factory"`` and loads its weights.

    Args:
        factory: an importable function or class that takes no arguments, dots allowed after the colon.
        weights: a state dictionary written by ``torch.save``; read with ``weights_only=True``.

    Raises:
        InputError: NF900, it cannot be imported, made or loaded.
    """
    name, _, attribute = factory.partition(":")
    if not name or not attribute:
        raise InputError(f"--torch {factory}: give package.module:factory", code="NF900")
    try:
        made: Any = import_module(name)
        for part in attribute.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--torch {factory}: {error}", code="NF900") from error
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:  # the user's own code
            raise InputError(f"--torch {factory}: {first_line(error)}", code="NF900") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"--torch {factory}: gives a {type(made).__name__}, not a module", code="NF900")
    if weights is not None:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            made.load_state_dict(state)
        except Exception as error:  # pickle, zip, missing keys: torch has no common base
            raise InputError(
                f"{os.fspath(weights)}: cannot be loaded: {first_line(error)}", code="NF900"
            ) from error
    return made
