"""The one data structure behind every output format: the report envelope, schema 1."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1

Action = Literal["folded", "merged", "moved", "kept", "substituted"]
Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Site:
    """One normalisation or constant affine, and what became of it.

    Attributes:
        site: name of the value that it produces.
        kind: what it means: ``batchnorm``, ``affine``, ``groupnorm``, ``constant``, …
        action: ``folded`` (gone into weights), ``merged`` (gone into a neighbouring normalisation or affine),
            ``moved`` (stands where fewer elements are touched), ``substituted`` (another spelling), ``kept``.
        rule: name of the rule that acted, ``None`` if kept.
        into: names of the output values of the nodes that took it.
        code: reason code of what is kept, ``None`` otherwise.
        reason: one sentence with the values at hand.
        nodes: operator types of the nodes it was made of, in graph order.
        elements: elements touched per inference before and after, where known (``moved``).
    """

    site: str
    kind: str
    action: Action
    rule: str | None = None
    into: tuple[str, ...] = ()
    code: str | None = None
    reason: str | None = None
    nodes: tuple[str, ...] = ()
    elements: tuple[int, int] | None = None


@dataclass(frozen=True)
class Finding:
    """One remark about a model (NF3xx and warnings of other families)."""

    code: str
    severity: Literal["error", "warn", "info"]
    message: str
    site: str | None = None


@dataclass
class Verification:
    """What was proven, on which inputs, and how far it reaches.

    Attributes:
        verdict: ``None`` where verification was skipped.
        algebra: the float64 proof: regions, sites proven, unproven sites, largest error and bound.
        rounding: per output: e0, e1, bound, and whether the bound came from float64 or from noise.
        providers: per execution provider and optimisation level: status and errors.
        inputs: seed, families, shapes: enough to draw them again.
        messages: one sentence for each reason behind a verdict that is not ``pass``.
    """

    verdict: Verdict | None = None
    algebra: dict[str, Any] = field(default_factory=dict)
    rounding: list[dict[str, Any]] = field(default_factory=list)
    providers: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class Report:
    """The envelope that every command fills. ``to_dict`` is what ``--format json`` prints.

    Attributes:
        command: ``fold``, ``inspect``, ``verify``, ``explain``.
        tool: versions of normfold and of what it ran on.
        exit: the exit code: 0 fine, 1 findings or mismatch, 2 unusable input or output, 3 inconclusive,
            4 internal error.
        inputs: path (``None`` for a model in memory), bytes and SHA-256 of each model and of its data files.
        outputs: the same of what was written; empty where nothing was.
        sites: every normalisation and constant affine, and what became of it.
        findings: errors and remarks.
        verification: the proof.
        timing: seconds by phase.
        summary: counts.
        runs: one report for each model of a batch; empty otherwise.
    """

    command: str
    tool: dict[str, str] = field(default_factory=dict)
    exit: int = 0
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    verification: Verification = field(default_factory=Verification)
    timing: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    runs: list[Report] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the envelope; ``runs`` is there for a batch only."""
        body: dict[str, Any] = dataclasses.asdict(dataclasses.replace(self, runs=[]))
        del body["runs"]
        if self.runs:
            body["runs"] = [run.to_dict() for run in self.runs]
        return {"schema": SCHEMA_VERSION, **body}
