"""The one data structure behind every output format: the report envelope, schema 1."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1
_SIGNALS = 128
"""Exit codes above name the signal that ended a process."""

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
class GraphNode:
    """One node in the picture of a site's surroundings.

    Attributes:
        value: name of its first output, which identifies it.
        operator: its type.
        inputs: values of other nodes of the picture that it reads.
        constants: shape of each constant that it reads, its axes joined by ``×``; empty for a scalar.
        role: ``site`` belongs to the normalisation or affine, ``target`` took it, ``changed`` is new or goes,
            ``context`` stands around them and stays, ``input`` is a graph input.
    """

    value: str
    operator: str
    inputs: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    role: Literal["site", "target", "changed", "context", "input"] = "context"


@dataclass(frozen=True)
class SiteGraph:
    """The surroundings of one site before and after; nodes in graph order.

    Attributes:
        site: name of the site, as in ``Site``.
        before: nodes of the original.
        after: what they became; empty where nothing changed.
    """

    site: str
    before: tuple[GraphNode, ...]
    after: tuple[GraphNode, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Two models timed against each other on one provider with one batch size.

    Attributes:
        provider: short name of the execution provider.
        batch: samples per run; ``None`` where the inputs have no batch axis.
        shapes: shape of each input.
        a: median seconds of one run of the first model.
        b: the same of the second.
        spread_a: interquartile range of the first model's times, relative to their median.
        spread_b: the same of the second.
        speedup: median over the rounds of a round's time of A divided by its time of B; above 1, B is faster.
        interval: 95 % bootstrap interval of ``speedup``.
        rounds: how often the two models took turns.
        runs_per_round: runs of each model in one round.
        threads: intra-op threads; 0 leaves the choice to onnxruntime.
        io_binding: whether inputs and outputs stayed on the device.
    """

    provider: str
    batch: int | None
    shapes: dict[str, list[int]]
    a: float
    b: float
    spread_a: float
    spread_b: float
    speedup: float
    interval: tuple[float, float]
    rounds: int
    runs_per_round: int
    threads: int
    io_binding: bool


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
        located: the first value where the models part, with the nodes around it; empty where they do not, or
            where it was not found.
    """

    verdict: Verdict | None = None
    algebra: dict[str, Any] = field(default_factory=dict)
    rounding: list[dict[str, Any]] = field(default_factory=list)
    providers: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    located: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """The envelope that every command fills. ``to_dict`` is what ``--format json`` prints.

    Attributes:
        command: ``fold``, ``inspect``, ``verify``, ``bench``, ``consistency``, ``calibrate``, ``explain``.
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
        graphs: the surroundings of sites, before and after.
        measurements: how fast two models ran.
        consistency: running statistics against data, or what a calibration changed.
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
    graphs: list[SiteGraph] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    consistency: dict[str, Any] = field(default_factory=dict)
    runs: list[Report] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the command."""
        return self.exit > _SIGNALS

    def to_dict(self) -> dict[str, Any]:
        """Returns the envelope; the last four fields only where they are not empty."""
        body: dict[str, Any] = dataclasses.asdict(dataclasses.replace(self, runs=[]))
        for name in ("graphs", "measurements", "consistency", "runs"):
            if not body[name]:
                del body[name]
        if self.runs:
            body["runs"] = [run.to_dict() for run in self.runs]
        return {"schema": SCHEMA_VERSION, **body}
