"""Where the float64 proof fails: the region, for the report and as a pair of models to save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normfold.verification.location.failure import save_failure
from normfold.verification.location.locate import neighbourhood, sentence
from normfold.verification.proof.region_proof import Proof, RegionProver


def described_proof(proof: Proof) -> dict[str, Any]:
    """The failing region in the same form as a location found by running both models."""
    region, mismatch = proof.region, proof.agreement.mismatch
    assert mismatch is not None
    name = mismatch.value
    entry: dict[str, Any] = {
        "value": name,
        "counterpart": name,
        "error": mismatch.error if mismatch.error < float("inf") else None,
        "bound": mismatch.bound,
        "agreeing": [key[1] for key in region.inputs],
        "from": "float64",
        "saved": None,
    }
    boundary = set(region.inputs)
    for side, nodes in (("original", region.original), ("folded", region.folded)):
        values = {value.name: value for node in nodes for value in node.outputs}
        read = {value for node in nodes for value in node.inputs if value is not None}
        ends = [value for value in read if any(value.name == key[1] for key in boundary)]
        entry[side] = neighbourhood(nodes, values[name], ends) if name in values else []
    return entry


def save_proof(proof: Proof, prover: RegionProver, entry: dict[str, Any], folder: Path) -> None:
    """Saves both sides of a failing region with the inputs on which they differ.

    Raises:
        OutputError: NF920, the folder cannot be written.
    """
    dtypes = {key[1]: dtype for draft in proof.drafts for key, (_, dtype) in draft.shapes.items()}
    inputs = {
        name: array.astype(dtypes.get(name, array.dtype)) for name, array in proof.samples[-1].inputs.items()
    }
    text = sentence(entry) + "\n\nThe difference was seen in float64, with edited weights before rounding."
    save_failure(folder, *prover.sides(proof), inputs, text)
    entry["saved"] = str(folder)
