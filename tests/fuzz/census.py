"""What the generated models made normfold do: which rows of the operator table, which reasons to refuse."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import onnx_ir as ir

from normfold.codes.fold import FOLD_CODES
from normfold.folding import folder
from normfold.planning.operators import TABLE
from normfold.planning.plan import Walk
from tests.checker import nodes_of
from tests.fuzz.generate import Case
from tests.fuzz.judge import Verdict

_DIRECTIONS = ("backward", "forward")


@dataclass
class Census:
    """Counts of one run; two of them add up.

    Attributes:
        counts: models tried, and what became of them.
        rows: crossings of plans that were applied, by operator and direction.
        codes: reasons given for sites that stayed.
        rules: rules of sites that went.
        operators: models by the operators they hold.
        kinds: models by opset, type of the first input, naming and so on.
        runtime: what onnxruntime could say.
        unusable: why a generated model said nothing.
        crashed: models on which onnxruntime crashed before any fold, by seed and number.
        died: models that a process died of, or that it did not get done with, likewise.
    """

    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    runtime: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    crashed: Counter[str] = field(default_factory=Counter)
    died: Counter[str] = field(default_factory=Counter)

    def add(self, other: Mapping[str, Mapping[str, int]]) -> None:
        for name, counter in other.items():
            getattr(self, name).update(counter)

    def as_dict(self) -> dict[str, dict[str, int]]:
        return {name: dict(sorted(counter.items())) for name, counter in vars(self).items()}

    def model(self, case: Case) -> None:
        """Notes a model that is about to be judged."""
        model = case.model
        opset = next(o.version for o in model.opset_import if not o.domain)
        self.counts["tried"] += 1
        self.operators.update({node.op_type for node in nodes_of(model.graph)})
        first = model.graph.input[0].type.tensor_type
        self.kinds[f"opset {opset}"] += 1
        self.kinds[ir.DataType(first.elem_type).name.lower()] += 1
        self.kinds["dynamic"] += any(d.dim_param for d in first.shape.dim)
        self.kinds["ir version 3"] += model.ir_version == 3
        self.kinds["overridable initializer"] += model.ir_version > 3 and len(model.graph.input) > 1
        self.kinds["local function"] += bool(model.functions)

    def verdict(self, verdict: Verdict) -> None:
        """Notes what was found."""
        folded = verdict.folded
        self.counts["changed"] += folded.changed
        acted = [site for site in folded.sites if site.action != "kept"]
        self.counts["with a fold"] += any(site.action in ("folded", "merged") for site in acted)
        self.counts["sites"] += len(folded.sites)
        self.counts["sites acted on"] += len(acted)
        self.codes.update(site.code for site in folded.sites if site.action == "kept" and site.code)
        self.rules.update(site.rule for site in acted if site.rule)
        if folded.changed:
            self.counts["values compared in float64"] += verdict.compared
            self.runtime[verdict.runtime] += 1
        if verdict.proof:
            self.counts["sites asked of the proof"] += verdict.proof["sites"]
            self.counts["sites proven"] += verdict.proof["proven"]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notes the crossings of every plan that is applied."""
        apply_plan, drop_bias = folder.apply_plan, folder.drop_bias

        def note(walk: Walk) -> None:
            direction = _DIRECTIONS[walk.forward]
            self.rows.update(f"{node.op_type} {direction}" for node in walk.crossings)

        def applied(plan: Any, workspace: Any) -> Any:
            for walk in plan.walks:
                note(walk)
            return apply_plan(plan, workspace)

        def dropped(node: Any, way: Any, workspace: Any) -> None:
            note(way)
            drop_bias(node, way, workspace)

        with (
            mock.patch.object(folder, "apply_plan", applied),
            mock.patch.object(folder, "drop_bias", dropped),
        ):
            yield

    def rows_never_met(self) -> list[str]:
        """Rows of the operator table, and their directions, that no applied plan has crossed."""
        base = next(iter(TABLE.values())).__class__.__mro__[-2]
        return [
            f"{op_type} {direction}"
            for op_type, entry in sorted(TABLE.items())
            for direction in _DIRECTIONS
            if getattr(type(entry), direction) is not getattr(base, direction)
            and not self.rows[f"{op_type} {direction}"]
        ]

    def codes_never_met(self) -> list[str]:
        """Reasons to keep a site that no model has given rise to."""
        return [code.id for code in FOLD_CODES if not self.codes[code.id]]
