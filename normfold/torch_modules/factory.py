"""A module made from ``package.module:factory``, and its weights."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from normfold.consistency.explanation.causes import counted
from normfold.errors import InputError
from normfold.torch_modules.messages import first_line

_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and ``torch.compile`` put in front of every name."""

_NAMED = 3


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
        _load_weights(made, weights)
    return made


def _load_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads a state dictionary; the prefix that a wrapper such as DataParallel gave every name may stay.

    Raises:
        InputError: NF900, the file cannot be read, or is not of this module; says what does not fit.
    """
    name = os.fspath(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text tells how to run code out of the file
        raise InputError(
            f"{name}: holds no state dictionary of tensors alone, and nothing else is read (weights_only)",
            code="NF900",
        ) from error
    except Exception as error:  # zip, pickle, operating system: torch has no common base
        raise InputError(f"{name}: cannot be loaded: {first_line(error)}", code="NF900") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise InputError(f"{name}: holds a {type(state).__name__}, not a state dictionary", code="NF900")
    _unwrap(state, module)
    try:
        found = module.load_state_dict(state, strict=False)
    except Exception as error:  # of another shape, or what a module's own hook raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"{name}: cannot be loaded: {' '.join(lines[:2])}", code="NF900") from error
    misfits = [
        f"{counted(len(keys), 'key')} {what}: {', '.join(keys[:_NAMED])}{', …' * (len(keys) > _NAMED)}"
        for keys, what in (
            (found.missing_keys, "missing"),
            (found.unexpected_keys, "that it does not have"),
        )
        if keys
    ]
    if misfits:
        nested = [key for key, value in state.items() if isinstance(value, Mapping)]
        hint = f"; save what it holds as {nested[0]!r} alone" if nested else ""
        raise InputError(
            f"{name}: no weights of this {type(module).__name__}: {'; '.join(misfits)}{hint}", code="NF900"
        )


def _unwrap(state: dict[str, Any], module: nn.Module) -> None:
    """Takes the prefixes that wrappers put in front of every key off, in place."""
    own = tuple(module.state_dict())
    for prefix in _WRAPPERS * 2:
        if all(key.startswith(prefix) for key in state) and not all(key.startswith(prefix) for key in own):
            consume_prefix_in_state_dict_if_present(state, prefix)
