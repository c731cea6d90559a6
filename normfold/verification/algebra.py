"""The float64 proof: every region of the difference computes the same before and after, and would notice an
error."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.errors import NormfoldError
from normfold.reporting.report import Site
from normfold.verification.boundary import Boundaries, Draft, Observation
from normfold.verification.comparison import (
    Agreement,
    Mismatch,
    Reference,
    Rejected,
    Runner,
    Side,
    Uncovered,
    compare,
    references,
)
from normfold.verification.graph_index import GraphIndex, is_random
from normfold.verification.inputs import FAMILIES
from normfold.verification.options import VerifyOptions
from normfold.verification.regions import Region, Regions, extract
from normfold.verification.sensitivity import change_at, notices, planted, randomised, replaced

Refold = Callable[[ir.Model], tuple[ir.Model, Mapping[str, Callable[[], np.ndarray]]]]
Observe = Callable[[int], Observation | None]

FAMILIES_BY_REGIONS = ((300, FAMILIES), (2000, ("normal", "impulse")))
"""How many families of inputs each region is tried on, by the number of regions; one beyond."""

WIDENINGS = (2, 8)


@dataclass
class Proof:
    """What is known of one region after trying it.

    Attributes:
        region: the region.
        agreement: what the comparison found, over all inputs.
        reason: why nothing could be said, ``None`` where something was.
        uncovered: the evaluator, not the inputs, is the reason.
        origin: where the shapes came from that settled it.
        original: the original's side.
        folded: the folded side.
        references: the inputs on which the sides were compared.
        drafts: the shapes of those inputs.
    """

    region: Region
    agreement: Agreement = field(default_factory=Agreement)
    reason: str | None = None
    uncovered: bool = False
    origin: str = ""
    original: Side | None = None
    folded: Side | None = None
    references: list[Reference] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether the two sides were compared at all."""
        return self.reason is None


class Prover:
    """Proves one fold. Use :func:`prove_fold`."""

    def __init__(
        self,
        original: ir.Model,
        folded: ir.Model,
        exact: Mapping[str, Callable[[], np.ndarray]],
        refold: Refold,
        options: VerifyOptions,
        observe: Observe,
    ) -> None:
        self._original = GraphIndex(original, freeze=options.freeze_initializers)
        self._folded = GraphIndex(folded, freeze=options.freeze_initializers)
        self._exact = exact
        self._refold = refold
        self._seed = options.seed
        self.regions = Regions(self._original, self._folded, exact)
        self._boundaries = Boundaries(self._original, observe)
        self.families = FAMILIES if options.thorough else _families(len(self.regions.regions))

    def locate(self, site: Site) -> tuple[list[Region], bool]:
        """The regions that a site's value is computed in, and whether the value is dead."""
        for value in self._named(site.site):
            producer = value.producer()
            if producer is None:
                continue
            if producer in self.regions.dead:
                return [], True
            regions = self.regions.containing(producer)
            if regions:
                return regions, False
        return [], False

    def _named(self, name: str) -> list[ir.Value]:
        main = self._original.values.get(("", name))
        if main is not None:
            return [main]
        return [value for key, value in self._original.values.items() if key[1] == name]

    def prove(self, region: Region, number: int) -> Proof:
        """Compares the two sides of a region, widening it where it seems to fail."""
        proof = self._try(region, number)
        if proof.agreement.mismatch is None:
            return proof
        for levels in WIDENINGS:
            wider = self.regions.widened(region, levels)
            if wider is None:
                break
            second = self._try(wider, number)
            if second.settled and second.agreement.mismatch is None:
                return second
        return proof

    def _try(self, region: Region, number: int) -> Proof:
        proof = Proof(region, reason="no input shapes were found that it accepts")
        random = next((node for node in (*region.original, *region.folded) if is_random(node)), None)
        if random is not None:
            proof.reason, proof.uncovered = f"{random.op_type} is random", True
            return proof
        original = Side(extract(self._original, region.original, region.inputs, region.outputs))
        folded_model = extract(self._folded, region.folded, region.inputs, region.outputs)
        held = [name for name in folded_model.graph.initializers if name in self._exact]
        folded = Side(folded_model, {name: self._exact[name] for name in held})
        runners = original.runner(), folded.runner()
        proof.original, proof.folded = original, folded
        names = [name for _, name in region.outputs]
        for drafts in self._boundaries.drafts(region.inputs, region.original):
            rng = np.random.default_rng((self._seed, number))
            try:
                agreement, kept = self._compare(*runners, drafts, names, rng)
            except Rejected as error:
                proof.reason = str(error)
                continue
            except Uncovered as error:
                proof.reason, proof.uncovered = str(error), True
                return proof
            proof.agreement, proof.references, proof.drafts = agreement, kept, drafts
            proof.origin = drafts[0].origin
            proof.reason = (
                None if agreement.samples else "the original is ill-conditioned on every input tried"
            )
            if agreement.mismatch is None and agreement.samples:
                return proof
            if agreement.mismatch is not None and drafts[0].origin != "shrunk":
                return proof
        return proof

    def _compare(
        self,
        original: Runner,
        folded: Runner,
        drafts: Sequence[Draft],
        names: Sequence[str],
        rng: np.random.Generator,
    ) -> tuple[Agreement, list[Reference]]:
        agreement = Agreement()
        kept: list[Reference] = []
        for draft in drafts:
            for reference in references(original, draft, names, rng, self.families):
                kept.append(reference)
                compare(folded, reference, agreement)
                if agreement.mismatch is not None:
                    return agreement, kept
        return agreement, kept

    def exercised(self, proof: Proof, site: Site, number: int) -> str | None:
        """Why the comparison of the site's region says nothing about the site; ``None`` where it does."""
        assert proof.original is not None
        rng = np.random.default_rng((self._seed, number, 1))
        change = change_at(proof.original.model, site)
        if not change:
            return None
        with planted(proof.original, change, rng) as runner:
            if notices(runner, proof.references):
                return None
        return self._exercised_at_random(proof, site, rng)

    def _exercised_at_random(self, proof: Proof, site: Site, rng: np.random.Generator) -> str | None:
        """The same with random constants of the same shapes, folded anew."""
        assert proof.original is not None
        model = randomised(proof.original.model, rng)
        self._annotate(model, proof.region)
        try:
            refolded, exact = self._refold(model)
        except NormfoldError as error:
            return f"its own constants show no error, and random ones cannot be folded: {error}"
        difference = Regions(GraphIndex(model), GraphIndex(refolded), exact)
        node = next((n for n in model.graph for v in n.outputs if v.name == site.site), None)
        if node is None or not difference.containing(node):
            return "its own constants show no error, and with random ones it was not folded"
        original, folded = Side(model), Side(refolded, exact)
        names = [value.name or "" for value in model.graph.outputs]
        try:
            agreement, kept = self._compare(original.runner(), folded.runner(), proof.drafts, names, rng)
        except (Rejected, Uncovered) as error:
            return f"its own constants show no error, and random ones cannot be run: {error}"
        if agreement.mismatch is not None:
            proof.agreement.mismatch = Mismatch(
                agreement.mismatch.value,
                agreement.mismatch.error,
                agreement.mismatch.bound,
                f"{agreement.mismatch.detail}, with random constants",
            )
            return None
        change = change_at(model, site)
        with planted(original, change, rng) as runner:
            if kept and notices(runner, kept):
                return None
        with replaced(original, change, rng) as runner:
            if kept and not notices(runner, kept):
                # Dead: with everything around it random, no value of the site's constants matters.
                return None
        return "neither its own constants nor random ones show an error planted there"

    def _annotate(self, model: ir.Model, region: Region) -> None:
        """Gives the region's model the shapes and types that inference knows, for those who fold it."""
        known = {key[1]: key for key in region.inputs}
        for value in model.graph.inputs:
            key = known[value.name or ""]
            dims, dtype = self._boundaries.dims(key), self._boundaries.dtype(key)
            if value.shape is None and dims is not None:
                value.shape = ir.Shape(dims)
            if value.type is None and dtype is not None:
                value.type = ir.TensorType(ir.DataType.from_numpy(dtype))


def _families(regions: int) -> Sequence[str]:
    return next((families for most, families in FAMILIES_BY_REGIONS if regions <= most), ("normal",))


def prove_fold(
    original: ir.Model,
    folded: ir.Model,
    exact: Mapping[str, Callable[[], np.ndarray]],
    sites: Sequence[Site],
    refold: Refold,
    options: VerifyOptions,
    *,
    observe: Observe | None = None,
    on_failure: Callable[[Proof], None] | None = None,
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
        options: seed, and whether to be thorough.
        observe: runs the original and returns its values' shapes; called only where inference cannot tell
            them.
        on_failure: is given every region whose sides differ.

    Returns:
        ``regions``, ``sites`` and ``proven`` (counts), ``unproven`` and ``failed`` (names and mismatches),
        ``reasons`` by unproven name, ``max_error``, ``max_ratio_to_bound``, ``families``, ``seconds``.
    """
    begun = time.perf_counter()
    prover = Prover(original, folded, exact, refold, options, observe or (lambda _variant: None))
    acted = [site for site in sites if site.action != "kept"]
    located: dict[int, list[Site]] = defaultdict(list)
    reasons: dict[str, str] = {}
    uncovered: set[str] = set()
    proven: set[str] = set()
    for site in acted:
        regions, dead = prover.locate(site)
        for region in regions:
            located[id(region)].append(site)
        if dead:
            proven.add(site.site)
        elif not regions:
            reasons[site.site] = "the models do not differ there"
    failed: list[dict[str, Any]] = []
    wrong: set[str] = set()
    max_error = max_ratio = 0.0
    for number, region in enumerate(prover.regions.regions):
        proof = prover.prove(region, number)
        members = located.get(id(region), [])
        if not proof.settled:
            names = [site.site for site in members] or [region.name]
            reasons.update(dict.fromkeys(names, proof.reason or ""))
            uncovered.update(names if proof.uncovered else ())
            wrong.update(names)
            continue
        for site in members if proof.agreement.mismatch is None else ():
            if site.site in proven:
                continue
            reason = prover.exercised(proof, site, number)
            if reason is None:
                proven.add(site.site)
            else:
                reasons.setdefault(site.site, reason)
        max_error = max(max_error, proof.agreement.max_error)
        max_ratio = max(max_ratio, proof.agreement.max_ratio)
        if proof.agreement.mismatch is not None:
            failed.append(_failure(region, proof.agreement.mismatch, members))
            wrong.update(site.site for site in members)
            if on_failure is not None:
                on_failure(proof)
    proven -= wrong
    reasons = {name: reason for name, reason in reasons.items() if name not in proven}
    failed.extend(
        {
            "value": name,
            "region": name,
            "sites": [],
            "error": None,
            "bound": None,
            "detail": "output is missing",
        }
        for name in prover.regions.missing_outputs
    )
    return {
        "regions": len(prover.regions.regions),
        "sites": len(acted),
        "proven": sum(site.site in proven for site in acted),
        "unproven": list(reasons),
        "reasons": reasons,
        "uncovered": [name for name in reasons if name in uncovered],
        "failed": failed,
        "max_error": _finite_or_none(max_error),
        "max_ratio_to_bound": _finite_or_none(max_ratio),
        "families": list(prover.families),
        "seconds": round(time.perf_counter() - begun, 3),
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


def _finite_or_none(number: float) -> float | None:
    """Numbers that JSON can hold."""
    return number if math.isfinite(number) else None
