"""The original's own response to noise of the size of rounding: the bound where no float64 reference is to be
had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from normfold.inputs.drawing import Arrays, is_floating, machine_epsilon

NOISE_ULPS = 2.0
DRAWS = 2
FACTOR = 4.0
"""How much more the rounding of every operator can move the outputs than weights and inputs moved by two
units."""
ROUNDED_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def noisy_models(model: ir.Model, folder: Path, seed: int) -> Iterator[Path]:
    """Writes copies of a model whose weights moved by up to two units in the last place.

    Args:
        model: the model; not changed.
        folder: where the copies go.
        seed: seed of the noise.
    """
    for number in range(DRAWS):
        copy = with_initializers(model)
        for graph in copy.graphs():
            for position, value in enumerate(graph.initializers.values()):
                if value.const_value is not None and is_rounded(value.const_value):
                    value.const_value = _noisy_tensor(value.const_value, (seed, number, position))
        path = folder / f"noisy{number}.onnx"
        ir.save(copy, path, external_data=f"noisy{number}.data")
        yield path


def with_initializers(model: ir.Model) -> ir.Model:
    """A copy whose weights are initializers; some exporters make them Constant nodes."""
    copy = model.clone()
    LiftConstantsToInitializersPass(size_limit=0)(copy)
    return copy


def is_rounded(tensor: ir.TensorProtocol) -> bool:
    """Whether a constant is a number that was rounded to its type, as an exponent of two is not."""
    if tensor.dtype not in ROUNDED_TYPES:
        return False
    return (
        tensor.size != 1 or not float(np.asarray(tensor.numpy()).astype(np.float64).reshape(())).is_integer()
    )


def _noisy_tensor(tensor: ir.TensorProtocol, seed: tuple[int, ...]) -> ir.LazyTensor:
    def evaluate() -> ir.TensorProtocol:
        content = jitter(np.asarray(tensor.numpy()), np.random.default_rng(seed))
        return ir.Tensor(content, name=tensor.name)

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(evaluate, dtype=tensor.dtype, shape=shape, name=tensor.name, cache=False)


def noisy_batches(batches: Sequence[Arrays], seed: int) -> list[Arrays]:
    """Inputs moved by up to two units in the last place; what is not floating stays."""
    rng = np.random.default_rng((seed, 2))
    return [
        {name: jitter(array, rng) if is_floating(array.dtype) else array for name, array in batch.items()}
        for batch in batches
    ]


def jitter(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array with every element moved by up to two units in the last place of its type; zeros stay."""
    noise = rng.uniform(-1.0, 1.0, array.shape)
    moved = array.astype(np.float64) * (1.0 + NOISE_ULPS * machine_epsilon(array.dtype) * noise)
    return np.asarray(moved.astype(array.dtype))
