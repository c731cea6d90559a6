"""The float64 proof of one region: both sides compute the same, and the comparison would notice an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from normfold.errors import NormfoldError
from normfold.inputs.drawing import FAMILIES, is_floating
from normfold.reporting.report import Site
from normfold.verification.graph_index import GraphIndex, is_random
from normfold.verification.options import VerifyOptions
from normfold.verification.proof.boundary import Boundaries, Draft, Observation
from normfold.verification.proof.comparison import (
    Agreement,
    Mismatch,
    Rejected,
    Sample,
    Side,
    Uncovered,
    compare,
    notices,
    sample,
)
from normfold.verification.proof.regions import Region, Regions, extract, view
from normfold.verification.proof.sensitivity import change_at, randomised

Refold = Callable[[ir.Model], tuple[ir.Model, Mapping[str, Callable[[], np.ndarray]]]]
Observe = Callable[[int], Observation | None]

FAMILIES_BY_REGIONS = ((300, ("normal", "large-mean", "impulse")), (2000, ("normal", "impulse")))
"""Which families of inputs each region is tried on, by the number of regions; only normal ones beyond. The
others are tried where none of these says anything, as in front of a logarithm."""

WIDENINGS = (2, 8)
REDRAWS = 4
"""Draws of one family until the original is finite and well-conditioned on one."""


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
        samples: the inputs on which the sides were compared.
        drafts: the shapes of those inputs.
    """

    region: Region
    agreement: Agreement = field(default_factory=Agreement)
    reason: str | None = None
    uncovered: bool = False
    origin: str = ""
    original: Side | None = None
    samples: list[Sample] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether the two sides were compared at all."""
        return self.reason is None


class RegionProver:
    """Proves the regions of one fold.

    Args:
        original: the original, local functions inlined.
        folded: what became of it.
        exact: contents of edited initializers of ``folded`` in float64, before they were rounded.
        refold: folds a small model of one region anew.
        options: seed, and whether to be thorough.
        observe: runs the original and returns its values' shapes.

    Attributes:
        regions: what the two models differ in.
        families: kinds of inputs that each region is tried on.
    """

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
        """Compares the two sides of a region, widening it where it seems to fail.

        Args:
            region: one of ``regions``.
            number: its place there, which seeds its inputs.

        Raises:
            DeadlineExceeded: a deadline is set and passes.
        """
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

    def sides(self, proof: Proof) -> tuple[ir.Model, ir.Model]:
        """Both sides of a region as models of their own."""
        region = proof.region
        return (
            extract(self._original, region.original, region.inputs, region.outputs),
            extract(self._folded, region.folded, region.inputs, region.outputs),
        )

    def _try(self, region: Region, number: int) -> Proof:
        proof = Proof(region, reason="no input shapes were found that it accepts")
        random = next((node for node in (*region.original, *region.folded) if is_random(node)), None)
        if random is not None:
            proof.reason, proof.uncovered = f"{random.op_type} is random", True
            return proof
        original = Side(view(self._original, region.original, region.inputs, region.outputs))
        after = view(self._folded, region.folded, region.inputs, region.outputs)
        # Of all graphs: a body inside the region has initializers of its own.
        folded = Side(after, self._exact)
        proof.original = original
        names = [name for _, name in region.outputs]
        for drafts in self._boundaries.drafts(region.inputs, region.original):
            rng = np.random.default_rng((self._seed, number))
            try:
                agreement, kept = self._compare(original, folded, drafts, names, rng)
            except Rejected as error:
                proof.reason = str(error)
                continue
            except Uncovered as error:
                proof.reason, proof.uncovered = str(error), True
                return proof
            proof.agreement, proof.samples, proof.drafts = agreement, kept, drafts
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
        original: Side,
        folded: Side,
        drafts: Sequence[Draft],
        names: Sequence[str],
        rng: np.random.Generator,
    ) -> tuple[Agreement, list[Sample]]:
        """Compares on one input of each family, up to the first that shows a difference."""
        agreement = Agreement()
        kept: list[Sample] = []
        for draft in drafts:
            before = agreement.samples
            for family in self._kinds(draft):
                if agreement.samples > before and family not in self.families:
                    break
                for _ in range(REDRAWS):
                    seen = sample(original, draft, names, family, rng)
                    if seen is not None and compare(folded, seen, agreement):
                        kept.append(seen)
                        break
                if agreement.mismatch is not None:
                    return agreement, kept
        return agreement, kept

    def _kinds(self, draft: Draft) -> Iterable[str]:
        """Families to try, the usual ones first; they make no difference where nothing floating is drawn."""
        drawn = any(is_floating(dtype) for _, dtype in draft.shapes.values())
        return dict.fromkeys((*self.families, *FAMILIES)) if drawn else self.families[:1]

    def exercised(self, proof: Proof, site: Site, number: int) -> str | None:
        """Why the comparison of the site's region says nothing about the site; ``None`` where it does.

        Raises:
            DeadlineExceeded: a deadline is set and passes.
        """
        assert proof.original is not None
        if self._is_empty(site.site):
            return None
        rng = np.random.default_rng((self._seed, number, 1))
        change = change_at(proof.region.original, self._original.constants, site)
        if not change or notices(proof.original, change.planted(rng), proof.samples):
            return None
        return self._exercised_at_random(proof, site, rng)

    def _is_empty(self, name: str) -> bool:
        """Whether a value has no elements that could be wrong: a mask of no further classes, say."""
        found = [self._boundaries.dims(key) for key in self._original.values if key[1] == name]
        return bool(found) and all(dims is not None and 0 in dims for dims in found)

    def _exercised_at_random(self, proof: Proof, site: Site, rng: np.random.Generator) -> str | None:
        """The same with random constants of the same shapes, folded anew."""
        region = proof.region
        model = randomised(extract(self._original, region.original, region.inputs, region.outputs), rng)
        self._annotate(model, region)
        try:
            refolded, exact = self._refold(model)
        except NormfoldError as error:
            return f"its own constants show no error, and random ones cannot be folded: {error}"
        index = GraphIndex(model)
        difference = Regions(index, GraphIndex(refolded), exact)
        node = next((n for n in model.graph for v in n.outputs if v.name == site.site), None)
        if node is None or not difference.containing(node):
            return "its own constants show no error, and with random ones it was not folded"
        original, folded = Side(model), Side(refolded, exact)
        names = [value.name or "" for value in model.graph.outputs]
        try:
            agreement, kept = self._compare(original, folded, proof.drafts, names, rng)
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
        change = change_at(list(model.graph), index.constants, site)
        if kept and notices(original, change.planted(rng), kept):
            return None
        if kept and not notices(original, change.replaced(rng), kept):
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
