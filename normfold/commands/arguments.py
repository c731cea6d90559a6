"""Arguments that commands share: how to prove, what to aim at, and what of that cannot be."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import onnx_ir as ir

from normfold.errors import InputError

if TYPE_CHECKING:
    from normfold.inputs import ImageOptions
    from normfold.verification import VerifyOptions

_MOST_ELEMENTS = 2**28
"""Of one input: a process that takes all memory is killed, and can say nothing."""


class VerifyArguments(TypedDict, total=False):
    """Keyword arguments that decide about a proof; see ``normfold.verification.VerifyOptions``.

    Attributes:
        data: real inputs: a path, or arrays by input name with samples along axis 0.
        image: how images become inputs, such as ``"size=224,mean=0.485/0.456/0.406"``; see
            ``normfold.inputs.ImageOptions``.
        shapes: full shape of inputs with dynamic axes, by input name.
        dims: size of named dynamic axes.
        providers: onnxruntime execution providers that must run both models, such as ``["cpu", "cuda"]``.
        provider_options: options of those, such as ``{"cuda": {"prefer_nhwc": "1"}}``.
        seed: seed of generated inputs.
        thorough: all families and sizes of inputs, without a time budget.
        allow_nonfinite: accept NaN and Inf where the original gives the same.
        rtol: largest accepted relative difference, on top of the rounding bound.
        atol: largest accepted absolute difference, on top of the rounding bound.
        proof_seconds: time that the float64 proof of a fold may take; what is left over then is unproven.
        budget_seconds: time that float64 references may take.
        save_failure: folder that takes the smallest pair of models that shows a difference, and its inputs.
    """

    data: str | os.PathLike[str] | Mapping[str, Any] | None
    image: str | ImageOptions | None
    shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, int]
    providers: Iterable[str]
    provider_options: Mapping[str, Mapping[str, str]]
    seed: int
    thorough: bool
    allow_nonfinite: bool
    rtol: float | None
    atol: float | None
    proof_seconds: float
    budget_seconds: float
    save_failure: str | os.PathLike[str] | None


def verify_options(checks: VerifyArguments, freeze_initializers: bool) -> VerifyOptions:
    """The options of a proof.

    Raises:
        InputError: NF900 if one is unknown or cannot be.
    """
    from normfold.verification import VerifyOptions

    known: dict[str, Any] = {**checks, "providers": tuple(checks.get("providers", ()))}
    known["image"] = image_options(known.get("image"))
    try:
        return VerifyOptions(**known, freeze_initializers=freeze_initializers)
    except TypeError as error:
        raise InputError(f"unknown verification option: {error}", code="NF900") from error


def image_options(given: str | ImageOptions | None) -> ImageOptions | None:
    """How images become inputs, as given or as read from ``"size=224,mean=…"``."""
    from normfold.inputs import parse_image_options

    return parse_image_options(given) if isinstance(given, str) else given


def chosen_target(target: str | None, providers: Sequence[str]) -> str:
    """The runtime that normalisations are spelled for.

    Args:
        target: what was asked for.
        providers: the execution providers to verify on; without a target the first says it.

    Raises:
        InputError: NF900 if there is no such target.
    """
    from normfold.planning.targets import TARGETS, target_of

    if target is None:
        return target_of(providers[0] if providers else "cpu")
    if target not in TARGETS:
        raise InputError(f"no target is named {target!r}; there are {', '.join(TARGETS)}", code="NF900")
    return target


def chosen_form(form: str | None) -> str | None:
    """The form that normalisations are to have, as asked for.

    Raises:
        InputError: NF900 if there is no such form.
    """
    from normfold.planning.norm_forms import FORMS

    if form is not None and form not in (*FORMS, "keep"):
        raise InputError(
            f"no form of GroupNorm is named {form!r}; there are {', '.join(FORMS)} and keep", code="NF900"
        )
    return form


def refuse_unfit_sizes(
    model: ir.Model, dims: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuses sizes of axes that the model does not have, which would be ignored, and inputs beyond memory.

    Raises:
        InputError: NF900.
    """
    if not (dims or shapes):
        return
    from normfold.inputs.drawing import signature

    for name, shape in shapes.items():
        _refuse_beyond_memory(name, shape)
    try:
        specs = signature(model)
    except InputError:
        # An input without a shape: what is wrong with it is said where inputs are drawn.
        return
    known = {size for spec in specs for size in spec.shape if isinstance(size, str)}
    for name in sorted(dims.keys() - known):
        there = f"there are {', '.join(sorted(known))}" if known else "all its sizes are fixed"
        raise InputError(f"--dim: the model has no axis named {name!r}, {there}", code="NF900")
    for spec in specs:
        _refuse_beyond_memory(
            spec.name, [size if isinstance(size, int) else dims.get(size, 1) for size in spec.shape]
        )


def _refuse_beyond_memory(name: str, shape: Iterable[int]) -> None:
    if math.prod(shape) > _MOST_ELEMENTS:
        raise InputError(f"input {name!r} would have more than {_MOST_ELEMENTS} elements", code="NF900")
