"""PyTorch modules: is what is exported what was trained? Needs the extra ``torch``.

>>> import normfold.torch
>>> normfold.torch.check(module, images).agree
True
>>> normfold.torch.export(module, (images[:1],), "model.onnx").report.verification.verdict
'pass'
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.commands.fold import FoldResult, fold
from normfold.consistency.layers import batchnorm_layers, inlined
from normfold.errors import InputError, MissingDependency
from normfold.evaluation import Evaluator, NotCovered
from normfold.folding import fold_model
from normfold.reporting.report import Finding

try:
    import torch
    from torch import nn
except ImportError as error:  # the only module that needs it
    raise MissingDependency(
        "normfold.torch needs torch: pip install 'normfold[torch]'", code="NF901"
    ) from error

_TOLERANCES = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
_TOLERANCE = 1e-3
"""Of an output's largest value: rounding of a deep network stays well below."""

_STATISTICS_TOLERANCE = 1e-6
_STATISTICS = {"running_mean": 0, "running_var": 1}


@dataclass(frozen=True)
class OutputComparison:
    """One output, computed in four ways; differences relative to the largest value of ``eval()``.

    Attributes:
        output: its name in the exported graph.
        train: ``module.train()`` with Dropout off, against ``eval()``; ``None`` where torch refuses to train
            on these inputs.
        exported: the exported graph, in float64, against ``eval()``.
        folded: the folded graph, in float64, against the exported graph.
    """

    output: str
    train: float | None
    exported: float
    folded: float


@dataclass(frozen=True)
class BufferComparison:
    """A running statistic of the module and what the exported graph holds for it.

    Attributes:
        name: in ``module.named_buffers()``.
        site: output value of the layer of the graph that holds it; ``None`` where none does: the exporter
            folded it, or it differs.
        difference: largest absolute difference, relative to the largest value; ``None`` where none holds it.
    """

    name: str
    site: str | None
    difference: float | None


@dataclass
class ModuleReport:
    """What a check found.

    Attributes:
        outputs: one for each output.
        buffers: every running mean and variance of the module.
        findings: NF355 where graph and module disagree.
        train_skipped: why ``train()`` was not run, ``None`` where it was.
    """

    outputs: list[OutputComparison] = field(default_factory=list)
    buffers: list[BufferComparison] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    train_skipped: str | None = None

    @property
    def agree(self) -> bool:
        """Whether module, exported graph and folded graph compute the same in evaluation."""
        return not any(finding.severity == "error" for finding in self.findings)


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
            raise InputError(f"--torch {factory}: {_line(error)}", code="NF900") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"--torch {factory}: gives a {type(made).__name__}, not a module", code="NF900")
    if weights is not None:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            made.load_state_dict(state)
        except Exception as error:  # pickle, zip, missing keys: torch has no common base
            raise InputError(
                f"{os.fspath(weights)}: cannot be loaded: {_line(error)}", code="NF900"
            ) from error
    return made


def check(module: nn.Module, inputs: Any, model: ir.Model | None = None) -> ModuleReport:
    """Compares ``module.train()``, ``module.eval()``, the exported graph and the folded graph side by side.

    In ``train()`` Dropout stays off, so that batch statistics are all that differs. Buffers, modes, gradients
    and the state of torch's random number generators are as before afterwards.

    Args:
        module: the live module.
        inputs: a tensor, array or tuple of them, as ``forward`` takes them; axis 0 counts images.
        model: a graph that was exported earlier; without it the module is exported now, normalisations kept.

    Returns:
        The report; ``report.agree`` is for test suites.

    Raises:
        InputError: the module or the model does not run on the inputs, or the module cannot be exported.
    """
    args = _tensors(inputs)
    report = ModuleReport()
    with _untouched(module):
        evaluated = _run(module.eval(), args)
        graph = inlined(model if model is not None else to_onnx(module, args, optimize=False))
        report.buffers = _compare_buffers(module, graph)
        trained, report.train_skipped = _run_training(module, args)
    feeds = {
        str(value.name): _native(tensor) for value, tensor in zip(graph.graph.inputs, args, strict=False)
    }
    folded = fold_model(graph)
    names = [str(value.name) for value in graph.graph.outputs]
    try:
        exported = Evaluator(graph).run(feeds)
        after = Evaluator(folded.model, constants=folded.exact).run(feeds)
    except (NotCovered, KeyError) as error:
        raise InputError(f"the exported graph cannot be evaluated: {_line(error)}") from error
    if len(names) != len(evaluated):
        raise InputError(f"the exported graph has {len(names)} outputs, the module {len(evaluated)}")
    for index, name in enumerate(names):
        reference = evaluated[index]
        report.outputs.append(
            OutputComparison(
                name,
                None if trained is None else _difference(trained[index], reference),
                _difference(exported[name], reference),
                _difference(after[name], exported[name]),
            )
        )
    report.findings = _findings(report, _tolerance(module, args))
    return report


def export(
    module: nn.Module, args: tuple[Any, ...], path: str | os.PathLike[str], **options: Any
) -> FoldResult:
    """Exports, folds and verifies a module in evaluation mode, and writes the folded model.

    Args:
        module: the live module; its mode and buffers are as before afterwards.
        args: positional arguments of ``forward``.
        path: of the result; written atomically, and only after the proof.
        **options: further arguments of ``torch.onnx.export``, such as ``dynamic_shapes`` and ``input_names``.

    Raises:
        InputError: the module cannot be exported.
        VerificationFailed: the fold is wrong; nothing was written.
        Inconclusive: the fold could not be proven; nothing was written.
        OutputError: the result cannot be written.
    """
    with _untouched(module):
        module.eval()
        model = to_onnx(module, args, **options)
    return fold(model, path)


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
        raise InputError(f"torch cannot export the module: {_line(_root(error))}") from error
    if program is None:
        raise InputError("torch did not return an exported program")
    model = ir.from_proto(program.model_proto)
    for node in model.graph.all_nodes():
        # It names source files of the exporting machine.
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    return model


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """The exporter logs which packages it does without."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Puts back modes, buffers, gradients and random states, whatever happens."""
    modes = {part: part.training for part in module.modules()}
    buffers = {part: dict(part._buffers) for part in module.modules()}
    try:
        contents = {buffer: buffer.detach().clone() for buffer in module.buffers()}
    except ValueError as error:  # a lazy module
        raise InputError(f"the module has never been run: {_line(error)}") from error
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


def _tensors(inputs: Any) -> tuple[torch.Tensor, ...]:
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    parts = inputs if isinstance(inputs, tuple | list) else (inputs,)
    try:
        return tuple(part if isinstance(part, torch.Tensor) else torch.as_tensor(part) for part in parts)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the inputs are no tensors: {_line(error)}") from error


def _run(module: nn.Module, args: tuple[torch.Tensor, ...]) -> list[np.ndarray[Any, Any]]:
    try:
        with torch.no_grad():
            return [_array(tensor) for tensor in _flattened(module(*args))]
    except Exception as error:  # the user's own code
        raise InputError(f"the module does not run on the inputs: {_line(error)}") from error


def _run_training(
    module: nn.Module, args: tuple[torch.Tensor, ...]
) -> tuple[list[np.ndarray[Any, Any]] | None, str | None]:
    """Batch statistics alone: everything but normalisations stays in evaluation."""
    try:
        module.train()
        for part in module.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd):
                part.training = False
        with torch.no_grad():
            return [_array(tensor) for tensor in _flattened(module(*args))], None
    except Exception as error:  # torch refuses to train on a single value per channel
        return None, _line(error)
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


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy().copy()


def _native(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """In its own type, which numpy may not have."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(ir.DataType.BFLOAT16.numpy())
    return tensor.numpy()


def _difference(value: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    if value.shape != reference.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    scale = float(np.abs(reference.astype(np.float64)).max()) or 1.0
    return float(np.abs(value.astype(np.float64) - reference.astype(np.float64)).max()) / scale


def _compare_buffers(module: nn.Module, model: ir.Model) -> list[BufferComparison]:
    """Each running statistic against the graph's value of that name, or else a layer that holds it."""
    layers = batchnorm_layers(model)
    found = []
    for name, buffer in module.named_buffers():
        leaf = name.rpartition(".")[2]
        if leaf not in _STATISTICS:
            continue
        own = _array(buffer).reshape(-1)
        held = [
            (
                layer.site,
                layer.mean if leaf == "running_mean" else layer.var,
                layer.node.inputs[3 + _STATISTICS[leaf]],
            )
            for layer in layers
        ]
        named = [(site, values) for site, values, value in held if value is not None and value.name == name]
        nearest = [
            (site, values)
            for site, values, _ in held
            if values.shape == own.shape and _difference(values, own) <= _STATISTICS_TOLERANCE
        ]
        if holders := named or nearest:
            site, values = holders[0]
            found.append(BufferComparison(name, site, _difference(values, own)))
        else:
            found.append(BufferComparison(name, None, None))
    return found


def _tolerance(module: nn.Module, args: Sequence[torch.Tensor]) -> float:
    """That of the coarsest type among parameters and inputs."""
    return max(_TOLERANCES.get(tensor.dtype, _TOLERANCE) for tensor in (*module.parameters(), *args))


def _findings(report: ModuleReport, tolerance: float) -> list[Finding]:
    found: list[Finding] = []
    for buffer in report.buffers:
        if buffer.difference is not None and not buffer.difference <= _STATISTICS_TOLERANCE:
            found.append(
                Finding(
                    "NF355",
                    "error",
                    f"{buffer.name} of the module is not that of the graph: it differs by "
                    f"{buffer.difference:.2g} of "
                    "its largest value",
                    buffer.site,
                )
            )
    for output in report.outputs:
        if not output.exported <= tolerance:
            found.append(
                Finding(
                    "NF355",
                    "error",
                    f"output '{output.output}' of the exported graph differs from module.eval() by "
                    f"{output.exported:.2g} of its largest value",
                )
            )
        if not output.folded <= tolerance:
            found.append(
                Finding(
                    "NF355",
                    "error",
                    f"output '{output.output}' of the folded graph differs from the exported one by "
                    f"{output.folded:.2g} of its largest value",
                )
            )
    return found


def _root(error: BaseException) -> BaseException:
    """What an exporter's error was raised from: its own first line names a step, not the trouble."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
