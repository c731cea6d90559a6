"""The float64 proof: every region of the difference computes the same before and after, and would notice an
error."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.evaluation import DeadlineExceeded, deadline
from normfold.reporting.report import Site
from normfold.verification.options import VerifyOptions
from normfold.verification.proof.comparison import Mismatch
from normfold.verification.proof.region_proof import Observe, Proof, Refold, RegionProver
from normfold.verification.proof.regions import Region

OnFailure = Callable[[Proof, RegionProver], None]


def prove_fold(
    original: ir.Model,
    folded: ir.Model,
    exact: Mapping[str, Callable[[], np.ndarray]],
    sites: Sequence[Site],
    refold: Refold,
    options: VerifyOptions,
    *,
    observe: Observe | None = None,
    on_failure: OnFailure | None = None,
) -> dict[str, Any]:
    """Proves in float64, region by region, that a fold changed nothing.

    Values of the same name mean the same in both models; whatever differs between the models is cut into
    regions whose boundaries are such values, and each region is run on both sides on random boundary values.
    Then, for each site that the fold acted on, a small error is planted into the original, and the comparison
    must reject it.

    Args:
        original: the original, local functions inlined.
        folded: what became of it.
        exact: contents of edited initializers of ``folded`` in float64, before they were rounded.
        sites: what was found and what was done; sites that were kept are not looked at.
        refold: folds a small model of one region anew, for sites whose own constants cannot show an error.
        options: seed, time limit, and whether to be thorough.
        observe: runs the original and returns its values' shapes; called only where inference cannot tell
            them.
        on_failure: is given every region whose sides differ.

    Returns:
        ``regions``, ``sites`` and ``proven`` (counts), ``unproven`` and ``failed`` (names and mismatches),
        ``reasons`` by unproven name, ``uncovered`` and ``out_of_time`` (those of them that the evaluator does
        not cover, and that the time limit left out), ``max_error``, ``max_ratio_to_bound``, ``families``,
        ``seconds``.
    """
    begun = time.perf_counter()
    limit = math.inf if options.thorough else options.proof_seconds
    tally = _Tally(RegionProver(original, folded, exact, refold, options, observe or _unobserved), on_failure)
    tally.locate(site for site in sites if site.action != "kept")
    with deadline(limit - (time.perf_counter() - begun)):
        tally.prove(limit)
    return tally.summary() | {"seconds": round(time.perf_counter() - begun, 3)}


def _unobserved(_variant: int) -> None:
    """For models that nothing runs."""


class _Tally:
    """Keeps the books while one region is proven after the other."""

    def __init__(self, prover: RegionProver, on_failure: OnFailure | None) -> None:
        self._prover, self._on_failure = prover, on_failure
        self._regions = prover.regions.regions
        self._members: dict[int, list[Site]] = defaultdict(list)
        self._sites: list[Site] = []
        self._proven: set[str] = set()
        self._wrong: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._uncovered: set[str] = set()
        self._late: set[str] = set()
        self._failed: list[dict[str, Any]] = []
        self._max_error = self._max_ratio = 0.0

    def locate(self, sites: Iterable[Site]) -> None:
        """Assigns each site to the regions that its value is computed in."""
        for site in sites:
            self._sites.append(site)
            regions, dead = self._prover.locate(site)
            for region in regions:
                self._members[id(region)].append(site)
            if dead:
                self._proven.add(site.site)
            elif not regions:
                self._reasons[site.site] = "the models do not differ there"

    def prove(self, limit: float) -> None:
        """Proves every region; those that a deadline leaves over are unproven."""
        number = 0
        try:
            for number, region in enumerate(self._regions):
                self._prove(region, number)
        except DeadlineExceeded:
            for region in self._regions[number:]:
                self._leave(region, f"the time limit of {limit:g} s was reached", self._late)

    def _prove(self, region: Region, number: int) -> None:
        proof = self._prover.prove(region, number)
        members = self._members.get(id(region), [])
        if not proof.settled:
            self._leave(region, proof.reason or "", self._uncovered if proof.uncovered else set())
            return
        for site in members if proof.agreement.mismatch is None else ():
            if site.site in self._proven:
                continue
            reason = self._prover.exercised(proof, site, number)
            if reason is None:
                self._proven.add(site.site)
            else:
                self._reasons.setdefault(site.site, reason)
        self._max_error = max(self._max_error, proof.agreement.max_error)
        self._max_ratio = max(self._max_ratio, proof.agreement.max_ratio)
        if proof.agreement.mismatch is not None:
            self._failed.append(_failure(region, proof.agreement.mismatch, members))
            self._wrong.update(site.site for site in members)
            if self._on_failure is not None:
                self._on_failure(proof, self._prover)

    def _leave(self, region: Region, reason: str, kind: set[str]) -> None:
        """Enters a region of which nothing is known, and the sites in it."""
        names = [site.site for site in self._members.get(id(region), [])] or [region.name]
        self._reasons.update(dict.fromkeys(names, reason))
        self._wrong.update(names)
        kind.update(names)

    def summary(self) -> dict[str, Any]:
        """What :func:`prove_fold` returns, but for the time."""
        proven = self._proven - self._wrong
        reasons = {name: reason for name, reason in self._reasons.items() if name not in proven}
        return {
            "regions": len(self._regions),
            "sites": len(self._sites),
            "proven": sum(site.site in proven for site in self._sites),
            "unproven": list(reasons),
            "reasons": reasons,
            "uncovered": [name for name in reasons if name in self._uncovered],
            "out_of_time": [name for name in reasons if name in self._late],
            "failed": self._failed + [_missing(name) for name in self._prover.regions.missing_outputs],
            "max_error": _finite_or_none(self._max_error),
            "max_ratio_to_bound": _finite_or_none(self._max_ratio),
            "families": list(self._prover.families),
        }


def _failure(region: Region, mismatch: Mismatch, sites: Sequence[Site]) -> dict[str, Any]:
    return {
        "value": mismatch.value,
        "region": region.name,
        "sites": [site.site for site in sites],
        "error": _finite_or_none(mismatch.error),
        "bound": _finite_or_none(mismatch.bound),
        "detail": mismatch.detail,
    }


def _missing(output: str) -> dict[str, Any]:
    return {
        "value": output,
        "region": output,
        "sites": [],
        "error": None,
        "bound": None,
        "detail": "output is missing",
    }


def _finite_or_none(number: float) -> float | None:
    """Numbers that JSON can hold."""
    return number if math.isfinite(number) else None
