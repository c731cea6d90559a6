"""Findings that need the model alone: one small file per group, functions from ``Subject`` to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from normfold.consistency.findings import ordered
from normfold.consistency.layers import inlined
from normfold.consistency.static.caffe import undivided_sums
from normfold.consistency.static.channels import amplified_channels, dead_channels
from normfold.consistency.static.epsilon import large_epsilons, mixed_epsilons
from normfold.consistency.static.exporter import exported_from_train, folded_by_exporter
from normfold.consistency.static.half import beyond_float16
from normfold.consistency.static.parameters import impossible_parameters, untrained_statistics
from normfold.consistency.static.producers import redundant_biases
from normfold.consistency.static.shapes import per_position, single_elements
from normfold.consistency.static.spelled import written_out
from normfold.consistency.static.subject import Subject
from normfold.consistency.static.training import active_dropout, batch_statistics
from normfold.preparation.workspace import Workspace
from normfold.reporting.report import Finding

_CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    batch_statistics,
    active_dropout,
    exported_from_train,
    untrained_statistics,
    impossible_parameters,
    large_epsilons,
    mixed_epsilons,
    written_out,
    amplified_channels,
    beyond_float16,
    dead_channels,
    redundant_biases,
    undivided_sums,
    single_elements,
    per_position,
    folded_by_exporter,
)


def static_findings(model: ir.Model, *, freeze_initializers: bool = False) -> list[Finding]:
    """Everything that the model alone betrays of a difference between training and evaluation.

    Args:
        model: is not changed. Local functions are looked into.
        freeze_initializers: initializers that are also graph inputs are constants.

    Returns:
        The findings, errors first, in graph order within one kind.
    """
    return findings_in(Workspace(inlined(model), freeze_initializers=freeze_initializers))


def findings_in(workspace: Workspace) -> list[Finding]:
    """As ``static_findings``, on a workspace that is there already. It is not changed."""
    subject = Subject(workspace)
    return ordered(finding for check in _CHECKS for finding in check(subject))
