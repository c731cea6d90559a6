"""Chooses the inputs of the end-to-end comparison: real data, or generated ones that the original is seen to
accept."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.errors import InputError
from normfold.inputs.data import load_data
from normfold.inputs.drawing import (
    FAMILIES,
    SAMPLING_RATES,
    Arrays,
    InputSpec,
    assignments,
    draw,
    float_inputs,
    open_axes,
    resolve,
    signature,
)
from normfold.verification.options import VerifyOptions

SMALL_INPUTS = 64 * 64 * 4
"""Elements up to which a model with a fixed batch of one is run on all default families."""

DEFAULT_FAMILIES = ("normal", "uniform", "large-mean", "impulse")
MAX_DATA_RUNS = 32
"""Runs on real data, unless thorough."""

WINDOWS = frozenset({"AveragePool", "Conv", "ConvTranspose", "DeformConv", "LpPool", "MaxPool"})

MAX_SECOND_SIZES = 6
"""Other sizes that are tried for a second look."""

MAX_OBJECTIONS = 12
"""Sizes that may be turned down although the original accepts them."""

Attempt = Callable[[Arrays], Arrays]
"""Runs the original; raises :class:`Unaccepted` where it does not run on these inputs."""


class Unaccepted(Exception):
    """The original does not run on an input.

    Attributes:
        rejected: the input is why; otherwise nothing here can run the original.
    """

    def __init__(self, message: str, *, rejected: bool = True) -> None:
        super().__init__(message)
        self.rejected = rejected


@dataclass
class Selection:
    """The inputs of the end-to-end comparison.

    Attributes:
        batches: inputs of each run.
        description: what is needed to draw them again, for the report.
        failure: why there are none, ``None`` where there are.
        nonfinite: the original ran, but never gave finite outputs.
    """

    batches: list[Arrays] = field(default_factory=list)
    description: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    nonfinite: bool = False

    def add(self, batch: Arrays) -> None:
        """Adds a run like the first with other contents."""
        self.batches.append(batch)
        runs = self.description["runs"]
        runs.append(dict(runs[0]))


def select(
    model: ir.Model,
    options: VerifyOptions,
    attempt: Attempt,
    objection: Callable[[Arrays], str | None] = lambda _arrays: None,
    *,
    look_twice: bool = False,
) -> Selection:
    """Finds inputs that the original accepts.

    Args:
        model: the original.
        options: data, shapes, sizes and seed.
        attempt: runs the original; an input that it rejects is no mismatch, another one is tried.
        objection: why inputs that the original accepts are not good ones all the same, ``None`` where they
            are. Sizes with an objection are taken where there are no others.
        look_twice: add a run at other sizes, with other integers and truth values, where the model has such.

    Raises:
        InputError: data or sizes that the caller gave do not fit the model.
    """
    specs = signature(model, options)
    if options.data is not None:
        return _from_data(specs, options, attempt)
    selection = Selection(description={"source": "generated", "seed": options.seed})
    wanted = 2 if options.thorough else 1
    last = "no sizes to try"
    second_choice: tuple[Any, ...] | None = None
    objections = 0
    pending = deque(assignments(specs))
    while pending:
        sizes = pending.popleft()
        shapes = resolve(specs, sizes)
        batches, families, failure = _try_families(specs, shapes, options, attempt, selection)
        if failure is not None:
            last = failure
        if not batches:
            continue
        if sizes and objections < MAX_OBJECTIONS and objection(batches[0]) is not None:
            second_choice = second_choice or (batches, families, shapes)
            objections += 1
            continue
        if objections == MAX_OBJECTIONS:
            break
        _take(selection, batches, families, shapes)
        wanted -= 1
        if not wanted:
            break
        pending = deque(_telling_first(pending, sizes, model, specs))
    if not selection.batches and second_choice is not None:
        _take(selection, *second_choice)
    if not selection.batches:
        selection.failure = last
    elif look_twice and not options.thorough:
        _look_twice(selection, model, specs, options, attempt, objection)
    return selection


def _telling_first(
    found: Iterable[dict[str, int]], first: Mapping[str, int], model: ir.Model, specs: Sequence[InputSpec]
) -> list[dict[str, int]]:
    """Sizes in the order in which they say most beside the ``first``: those that no window of the model
    reaches beyond, then larger ones. On a sequence of two, most of a wide kernel reads padding."""
    inner = open_axes(specs) & first.keys()
    reach = _reach(model) if inner else 0
    elements = math.prod(first.values())

    def key(sizes: Mapping[str, int]) -> tuple[int, bool]:
        short = max((reach - sizes[name] for name in inner), default=0)
        return max(short, 0), math.prod(sizes.values()) < elements

    return sorted(found, key=key)


def _reach(model: ir.Model) -> int:
    """Extent of the widest window of a convolution or pool."""
    widest = 1
    for node in (node for graph in model.graphs() for node in graph if node.op_type in WINDOWS):
        kernel = list(node.attributes.get_ints("kernel_shape", ()))
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if not kernel and weight is not None and weight.shape is not None:
            kernel = [size for size in weight.shape[2:] if isinstance(size, int)]
        dilations = list(node.attributes.get_ints("dilations", ())) or [1] * len(kernel)
        extents = ((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=False))
        widest = max([widest, *extents])
    return widest


def _look_twice(
    selection: Selection,
    model: ir.Model,
    specs: Sequence[InputSpec],
    options: VerifyOptions,
    attempt: Attempt,
    objection: Callable[[Arrays], str | None],
) -> None:
    """Adds a run that differs from the first in whatever can differ, if one is accepted without objection."""
    first = selection.batches[0]
    sizes = {
        label: size
        for spec in specs
        for label, size in zip(spec.shape, first[spec.name].shape, strict=True)
        if isinstance(label, str)
    }
    if not sizes and all(spec.floating for spec in specs):
        return
    families = selection.description["runs"][0]["families"][:1]
    others = (found for found in assignments(specs) if all(found[name] != sizes[name] for name in sizes))
    telling = _telling_first(others, sizes, model, specs)
    rates = SAMPLING_RATES[::-1] if any(spec.is_sampling_rate for spec in specs) else SAMPLING_RATES[:1]
    for number, found in enumerate([*telling[:MAX_SECOND_SIZES], sizes] if sizes else [sizes]):
        shapes = resolve(specs, found)
        for rate, integers in itertools.product(rates, ((1, 2), (0, 1), (0, 0))):
            rng = np.random.default_rng((options.seed, 2, number))
            arrays = draw(specs, shapes, families, rng, integers, rate)
            for spec in specs:
                if spec.dtype.kind == "b" and first[spec.name].shape == shapes[spec.name]:
                    arrays[spec.name] = ~first[spec.name]
            try:
                outputs = attempt(arrays)
            except Unaccepted:
                outputs = None
            fit = outputs is not None and (all_finite(outputs) or options.allow_nonfinite)
            if fit and (not sizes or found == sizes or objection(arrays) is None):
                _take(selection, [arrays], [families], shapes)
                return
            if all(spec.floating for spec in specs):
                break


def _take(
    selection: Selection,
    batches: Sequence[Arrays],
    families: Sequence[Sequence[str]],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    selection.batches += batches
    runs = selection.description.setdefault("runs", [])
    runs.extend(
        {"families": list(names), "shapes": {name: list(shape) for name, shape in shapes.items()}}
        for names in families
    )


def _from_data(specs: Sequence[InputSpec], options: VerifyOptions, attempt: Attempt) -> Selection:
    assert options.data is not None
    limit = None if options.thorough else MAX_DATA_RUNS
    batches = list(islice(load_data(options.data, specs, options.image), limit))
    if not batches:
        raise InputError("the data holds no sample")
    try:
        attempt(batches[0])
    except Unaccepted as error:
        if error.rejected:
            raise InputError(f"the original does not run on the given data: {error}") from error
    shapes = {name: list(array.shape) for name, array in batches[0].items()}
    return Selection(batches, {"source": "data", "runs": len(batches), "shapes": shapes})


def _try_families(
    specs: Sequence[InputSpec],
    shapes: dict[str, tuple[int, ...]],
    options: VerifyOptions,
    attempt: Attempt,
    selection: Selection,
) -> tuple[list[Arrays], list[tuple[str, ...]], str | None]:
    """Batches for one assignment of sizes; families are mixed along axis 0 where there is room."""
    room = max((shape[0] for spec in specs if spec.floating and (shape := shapes[spec.name])), default=1)
    plans: list[tuple[str, ...]]
    every, usual = (
        tuple(family for family in listed if options.large_means or family != "large-mean")
        for listed in (FAMILIES, DEFAULT_FAMILIES)
    )
    if options.thorough:
        plans = [(family,) for family in every]
    elif room >= 2:
        plans = [usual[:room]]
    else:
        elements = sum(math.prod(shape) for shape in shapes.values())
        plans = [(family,) for family in usual[: 4 if elements <= SMALL_INPUTS else 2]]
    if not float_inputs(specs):
        plans = plans[:2]
    rates = SAMPLING_RATES if any(spec.is_sampling_rate for spec in specs) else SAMPLING_RATES[:1]
    fallbacks = [(family,) for family in ("uniform", "constant") if (family,) not in plans]
    batches: list[Arrays] = []
    used: list[tuple[str, ...]] = []
    failure: str | None = None
    for number, families in enumerate([*plans, *fallbacks]):
        if number >= len(plans) and batches:
            break
        for rate, integers in itertools.product(rates, ((0, 1), (0, 0), (1, 1))):
            rng = np.random.default_rng((options.seed, number))
            arrays = draw(specs, shapes, families, rng, integers, rate)
            try:
                outputs = attempt(arrays)
            except Unaccepted as error:
                failure = str(error)
                if all(spec.floating for spec in specs):
                    return batches, used, failure
                continue
            if all_finite(outputs) or options.allow_nonfinite:
                batches.append(arrays)
                used.append(families)
                break
            selection.nonfinite = True
            failure = "the original's outputs are not finite"
    return batches, used, failure


def all_finite(outputs: Arrays) -> bool:
    """Whether no output holds NaN or an infinity."""
    return all(bool(np.isfinite(v).all()) for v in outputs.values() if v.dtype.kind == "f")
