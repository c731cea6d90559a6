"""Reads values from inside two models, on one input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from normfold.evaluation import Evaluator
from normfold.evaluation.nodes import Precision
from normfold.inputs.drawing import Arrays
from normfold.runtime.client import Runtime, write_model
from normfold.verification.endtoend.decisions import tapped
from normfold.verification.endtoend.noise import noisy_batches, noisy_models, with_initializers
from normfold.verification.endtoend.providers import strict_options
from normfold.verification.endtoend.reference import Watch, moved_weights
from normfold.verification.location.locate import measure
from normfold.verification.location.matching import Twins
from normfold.verification.options import VerifyOptions


class RuntimeProbe:
    """Both models in onnxruntime, every value that they share made an output.

    Args:
        models: the original and the other model.
        pairs: values that may be asked for.
        batches: inputs; the one on which ``output`` differs most is used.
        output: an output that differs.
        runtime: the child process.
        provider: execution provider.
        optimize: whether the other model runs with graph optimisations, as far as reading values leaves any.
        seed: of the noise.

    Raises:
        RuntimeRefused: onnxruntime does not run a model with these outputs.
        RuntimeCrashed: it died or took too long.
    """

    def __init__(
        self,
        models: tuple[ir.Model, ir.Model],
        pairs: Twins,
        batches: Sequence[Arrays],
        output: str,
        runtime: Runtime,
        provider: str,
        *,
        optimize: bool,
        seed: int,
    ) -> None:
        self._runtime = runtime
        folder = runtime.folder / "locate"
        folder.mkdir(exist_ok=True)
        first = tapped(models[0], [left.name or "" for left in pairs if _readable(left)])
        second = tapped(models[1], [right.name or "" for left, right in pairs.items() if _readable(left)])
        options = strict_options(provider)

        def load(path: Path, optimize: bool = False):  # type: ignore[no-untyped-def]
            return runtime.open(path, provider, optimize=optimize, options=options)

        self._first = load(write_model(first, folder, "original"))
        self._second = load(write_model(second, folder, "folded"), optimize)
        self._moved = [load(path) for path in noisy_models(first, folder, seed)]
        self.batch = batches[0]
        if len(batches) > 1:
            names = output, _counterpart(pairs, output)
            self.batch = max(batches, key=lambda batch: self._error(batch, names))
        self._noisy = noisy_batches([self.batch], seed)[0]

    def _error(self, batch: Arrays, names: tuple[str, str]) -> float:
        first, second = (
            self._runtime.run(session, batch, [name])[name]
            for session, name in zip((self._first, self._second), names, strict=True)
        )
        return measure(first, second, []).error

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> tuple[Arrays, Arrays, list[Arrays]]:
        """See :class:`normfold.verification.locate.Probe`."""
        return (
            self._runtime.run(self._first, self.batch, first),
            self._runtime.run(self._second, self.batch, second),
            [self._runtime.run(session, self._noisy, first) for session in self._moved],
        )


class EvaluatorProbe:
    """Both models in the evaluator. For where onnxruntime does not run them, or not precisely enough.

    Args:
        models: the original and the other model.
        pairs: values that may be asked for.
        batches: inputs; the one on which ``output`` differs most is used.
        output: an output that differs.
        options: seed and budget.
        precision: the models' own types, or float64, where noise moves weights alone.

    Raises:
        NotCovered: a model is not covered.
        OverBudget: it takes too much time or memory.
    """

    def __init__(
        self,
        models: tuple[ir.Model, ir.Model],
        pairs: Twins,
        batches: Sequence[Arrays],
        output: str,
        options: VerifyOptions,
        precision: Precision = "native",
    ) -> None:
        self._first, self._second = (Evaluator(model, precision=precision) for model in models)
        weighted = with_initializers(models[0])
        weights = moved_weights(weighted, (options.seed, 0))
        self._moved = Evaluator(weighted, precision=precision, constants=weights)
        self._watch = Watch(options)
        self.batch = batches[0]
        if len(batches) > 1:
            names = output, _counterpart(pairs, output)
            self.batch = max(batches, key=lambda batch: self._error(batch, names))
        self._noisy = self.batch if precision == "float64" else noisy_batches([self.batch], options.seed)[0]

    def _error(self, batch: Arrays, names: tuple[str, str]) -> float:
        first, second = (
            self._run(evaluator, batch, [name])[name]
            for evaluator, name in zip((self._first, self._second), names, strict=True)
        )
        return measure(first, second, []).error

    def _run(self, evaluator: Evaluator, batch: Arrays, names: Sequence[str]) -> Arrays:
        found = self._watch.run(evaluator, batch, names)
        return {name: np.asarray(found[name]) for name in names}

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> tuple[Arrays, Arrays, list[Arrays]]:
        """See :class:`normfold.verification.locate.Probe`."""
        return (
            self._run(self._first, self.batch, first),
            self._run(self._second, self.batch, second),
            [self._run(self._moved, self._noisy, first)],
        )


def _counterpart(pairs: Twins, output: str) -> str:
    """The name of a value of the first model in the second."""
    return next((right.name or "" for left, right in pairs.items() if left.name == output), output)


def _readable(value: ir.Value) -> bool:
    return value.type is None or isinstance(value.type, ir.TensorType)
