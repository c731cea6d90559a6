"""Draws inputs for any model signature. Everything drawn follows from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from normfold.errors import InputError
from normfold.inputs.options import InputOptions

FAMILIES = ("normal", "uniform", "large-mean", "impulse", "constant")
"""Kinds of floating-point inputs: N(0, 1); U[0, 1); N(10, 1); zero but for single ones, at the border above
all; 0.5."""

SPATIAL_SIZES = (32, 48, 64, 224, 320, 512, 2, 1)
SIZES = (2, 1, 32, 48, 64, 224, 320, 512)
LENGTHS = (320, 512, 64)
MAX_ATTEMPTS = 64

BATCH_NAMES = frozenset({"batch", "batch_size", "batchsize", "bs", "n"})
SAMPLING_RATES = (16000, 8000)
SAMPLING_RATE_NAMES = frozenset({"sr", "fs", "rate", "sampling_rate", "sample_rate", "samplerate"})

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class InputSpec:
    """One input that a caller has to provide.

    Attributes:
        name: the input's name.
        dtype: numpy type of its elements.
        shape: sizes; a string is a dynamic axis, and equal strings are equal sizes.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...]

    @property
    def floating(self) -> bool:
        """Whether elements are floating-point numbers, numpy's own or those of narrow formats."""
        return is_floating(self.dtype)

    @property
    def is_sampling_rate(self) -> bool:
        """Whether the input is one integer that is called a sampling rate."""
        single = all(size == 1 for size in self.shape)
        return single and self.dtype.kind in "iu" and self.name.lower() in SAMPLING_RATE_NAMES


def is_floating(dtype: np.dtype) -> bool:
    """Whether the type is a floating-point type, bfloat16 and the 8-bit formats included."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def machine_epsilon(dtype: np.dtype) -> float:
    """Distance from 1 to the next larger number of a floating-point type."""
    finfo: Any = np.finfo if dtype.kind == "f" else ml_dtypes.finfo
    return float(finfo(dtype).eps)


def signature(model: ir.Model, options: InputOptions | None = None) -> list[InputSpec]:
    """The inputs that have to be provided. Those with a default (also an initializer) keep it.

    Args:
        model: the model.
        options: fixed shapes and dimensions.

    Raises:
        InputError: an input is not a tensor, or a given shape does not fit.
    """
    options = options or InputOptions()
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        name = value.name or ""
        if not isinstance(value.type, ir.TensorType):
            raise InputError(f"input '{name}' is not a tensor, and only tensors can be generated")
        specs.append(InputSpec(name, value.type.dtype.numpy(), _shape_of(value, name, options)))
    unknown = options.shapes.keys() - {spec.name for spec in specs}
    if unknown:
        raise InputError(f"--shape names '{min(unknown)}', which is not an input of the model")
    return specs


def _shape_of(value: ir.Value, name: str, options: InputOptions) -> tuple[int | str, ...]:
    given = options.shapes.get(name)
    if value.shape is None:
        if given is None:
            raise InputError(f"input '{name}' has no shape: give one with --shape {name}=…")
        return tuple(given)
    if given is not None and len(given) != len(value.shape):
        raise InputError(f"--shape {name} has {len(given)} axes, the input has {len(value.shape)}")
    sizes: list[int | str] = []
    for axis, dim in enumerate(value.shape):
        if given is not None:
            if isinstance(dim, int) and dim >= 0 and dim != given[axis]:
                raise InputError(
                    f"--shape {name} wants {given[axis]} on axis {axis}, where the model has {dim}"
                )
            sizes.append(given[axis])
        elif isinstance(dim, int) and dim >= 0:
            sizes.append(dim)
        else:
            # Some exporters write -1 for an open axis.
            label = f"{name}.{axis}" if isinstance(dim, int) or not dim.value else dim.value
            sizes.append(options.dims.get(label, label))
    return tuple(sizes)


def assignments(specs: Sequence[InputSpec]) -> Iterator[dict[str, int]]:
    """Sizes for the dynamic axes, the most useful first.

    Axes that only ever come first, or are called so, are batches; the others are tried at common image and
    sequence sizes, equal ones before mixed ones.
    """
    batch, spatial, other = _roles(specs)
    if not (batch or spatial or other):
        yield {}
        return
    small = all(
        np.prod([size for size in spec.shape if isinstance(size, int)] or [1]) <= 64 * 64 * 4
        for spec in specs
    )
    batches = (4, 1, 2) if small else (2, 1)
    seen = set()
    equal = (
        dict.fromkeys(batch, b) | dict.fromkeys(spatial, s) | dict.fromkeys(other, o)
        for o in (SIZES if other else (1,))
        for s in (SPATIAL_SIZES if spatial else (1,))
        for b in (batches if batch else (1,))
        if not (spatial and other) or o in (s, 2, 1)
    )
    free = [*spatial, *other]
    mixed = (
        dict.fromkeys(batch, 1) | dict(zip(free, sizes, strict=True))
        for sizes in itertools.product((32, 48, 64, 320), repeat=min(len(free), 3))
        if len(free) in (2, 3)
    )
    # A sequence beside the states of a recurrent network: one axis is long, the others are batches.
    single = (
        dict.fromkeys([*batch, *free], 1) | {name: size} for name in free for size in LENGTHS if len(free) > 1
    )
    for found in itertools.islice(itertools.chain(equal, single, mixed), MAX_ATTEMPTS):
        key = tuple(sorted(found.items()))
        if key not in seen:
            seen.add(key)
            yield found


def open_axes(specs: Sequence[InputSpec]) -> set[str]:
    """The dynamic axes that are no batches."""
    _, spatial, other = _roles(specs)
    return {*spatial, *other}


def _roles(specs: Sequence[InputSpec]) -> tuple[list[str], list[str], list[str]]:
    places: dict[str, set[tuple[bool, bool]]] = {}
    for spec in specs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str):
                places.setdefault(size, set()).add((axis == 0, len(spec.shape) >= 4 and axis >= 1))
    batch = [
        name
        for name, where in places.items()
        if all(first for first, _ in where) or name.lower() in BATCH_NAMES
    ]
    spatial = [
        name for name, where in places.items() if name not in batch and any(image for _, image in where)
    ]
    return batch, spatial, [name for name in places if name not in batch and name not in spatial]


def resolve(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> Shapes:
    """Static shapes of all inputs, with ``sizes`` for the dynamic axes."""
    return {
        spec.name: tuple(size if isinstance(size, int) else sizes[size] for size in spec.shape)
        for spec in specs
    }


def draw(
    specs: Sequence[InputSpec],
    shapes: Shapes,
    families: Sequence[str],
    rng: np.random.Generator,
    integers: tuple[int, int] = (0, 1),
    rate: int = SAMPLING_RATES[0],
) -> Arrays:
    """One set of inputs.

    Args:
        specs: the inputs.
        shapes: their static shapes.
        families: floating-point families; with several, axis 0 takes them in turn.
        rng: source of all randomness.
        integers: smallest and largest integer to draw. 8-bit images take their whole range where it is (0,
            1).
        rate: for a single integer that is called a sampling rate.

    Returns:
        Arrays by input name, in the inputs' own types. Strings are drawn from ``"a"`` and ``"b"``.
    """
    return {
        spec.name: np.full(shapes[spec.name], rate, spec.dtype)
        if spec.is_sampling_rate
        else _draw_one(spec, shapes[spec.name], families, rng, integers)
        for spec in specs
    }


def _draw_one(
    spec: InputSpec,
    shape: tuple[int, ...],
    families: Sequence[str],
    rng: np.random.Generator,
    integers: tuple[int, int],
) -> np.ndarray:
    if spec.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if spec.dtype.kind in "OUST":
        return rng.choice(np.array(["a", "b"], dtype=object), size=shape)
    if not spec.floating:
        low, high = integers
        if spec.dtype == np.uint8 and len(shape) >= 3 and integers == (0, 1):
            high = 255
        return np.asarray(rng.integers(low, high + 1, size=shape)).astype(spec.dtype)
    if len(families) == 1 or not shape or shape[0] < 2:
        return family_sample(families[0], shape, rng).astype(spec.dtype)
    rows = [family_sample(families[i % len(families)], shape[1:], rng) for i in range(shape[0])]
    return np.stack(rows).astype(spec.dtype)


def family_sample(family: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One float64 array of a family of ``FAMILIES``."""
    if family == "normal":
        return np.asarray(rng.standard_normal(shape))
    if family == "uniform":
        return np.asarray(rng.random(shape))
    if family == "large-mean":
        return np.asarray(10.0 + rng.standard_normal(shape))
    if family == "constant":
        return np.full(shape, 0.5)
    sample = np.zeros(shape)
    if sample.size:
        # The first and the last element are corners of the image; a random one lies inside.
        for place in (0, sample.size - 1, int(rng.integers(sample.size))):
            sample.flat[place] = 1.0
    return sample


def float_inputs(specs: Sequence[InputSpec]) -> bool:
    """Whether any input is floating-point, so that families make a difference."""
    return any(spec.floating for spec in specs)
