"""A module, its exported graph and its folded graph side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from normfold.consistency.layers import batchnorm_layers, inlined
from normfold.errors import InputError
from normfold.evaluation import Evaluator, NotCovered
from normfold.folding import fold_model
from normfold.reporting.report import Finding
from normfold.torch_modules.exporter import to_onnx
from normfold.torch_modules.messages import first_line
from normfold.torch_modules.running import as_array, as_native, as_tensors, run, run_training, untouched

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
    args = as_tensors(inputs)
    report = ModuleReport()
    with untouched(module):
        evaluated = run(module.eval(), args)
        graph = inlined(model if model is not None else to_onnx(module, args, optimize=False))
        report.buffers = _compare_buffers(module, graph)
        trained, report.train_skipped = run_training(module, args)
    feeds = {
        str(value.name): as_native(tensor) for value, tensor in zip(graph.graph.inputs, args, strict=False)
    }
    folded = fold_model(graph)
    names = [str(value.name) for value in graph.graph.outputs]
    try:
        exported = Evaluator(graph).run(feeds)
        after = Evaluator(folded.model, constants=folded.exact).run(feeds)
    except (NotCovered, KeyError) as error:
        raise InputError(f"the exported graph cannot be evaluated: {first_line(error)}") from error
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
        own = as_array(buffer).reshape(-1)
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
