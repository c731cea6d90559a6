"""Time of a fold and of its float64 proof over the number of Conv → BatchNormalization pairs in a chain."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.chains import conv_batchnorm_chain
from normfold.folding import fold_model
from normfold.verification import VerifyOptions, prove_fold


def main(arguments: Sequence[str]) -> int:
    """Measure, print a Markdown table, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("lengths", nargs="*", type=int, default=[625, 1250, 2500, 5000, 10_000])
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    given = parser.parse_args(arguments)
    rows = []
    print("| pairs | fold, processor seconds | ms per pair | proof, processor seconds | ms per pair |")
    print("|---|---|---|---|---|")
    for length in given.lengths:
        model = conv_batchnorm_chain(length)
        start = time.process_time()
        folded = fold_model(model)
        fold = time.process_time() - start
        start = time.process_time()
        found = prove_fold(
            folded.original, folded.model, folded.exact, folded.sites, _refold, VerifyOptions()
        )
        proof = time.process_time() - start
        assert found["proven"] == length
        rows.append({"pairs": length, "fold": fold, "proof": proof})
        cells = (f"{seconds:.2f} | {1000 * seconds / length:.2f}" for seconds in (fold, proof))
        print(f"| {length} | {' | '.join(cells)} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _refold(region: ir.Model) -> tuple[ir.Model, Mapping[str, Callable[[], np.ndarray]]]:
    folded = fold_model(region)
    return folded.model, folded.exact
