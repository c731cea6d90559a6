"""Time of a fold over the number of Conv → BatchNormalization pairs in a chain."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chains import conv_batchnorm_chain
from normfold.folding import fold_model


def main(arguments: Sequence[str]) -> int:
    """Measure, print a Markdown table, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("lengths", nargs="*", type=int, default=[625, 1250, 2500, 5000, 10_000])
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    given = parser.parse_args(arguments)
    rows = []
    print("| pairs | processor seconds | milliseconds per pair |\n|---|---|---|")
    for length in given.lengths:
        model = conv_batchnorm_chain(length)
        start = time.process_time()
        fold_model(model)
        seconds = time.process_time() - start
        rows.append({"pairs": length, "seconds": seconds})
        print(f"| {length} | {seconds:.2f} | {1000 * seconds / length:.2f} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0
