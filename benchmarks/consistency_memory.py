"""Memory of ``consistency --data`` and ``calibrate`` against the number of images: it stays flat.

Run from the repository root: ``python -m benchmarks consistency_memory``. Images are drawn as they are
asked for, so the peak is that of the passes themselves. Prints one line per number of images: the peak of
Python's and numpy's allocations in MiB, and seconds.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from normfold import loading
from normfold.consistency.calibration import calibrate
from normfold.consistency.drift import data_findings

MODEL = Path(__file__).parents[1] / "models" / "trained" / "lenet_digits_bn.onnx"
DIGITS = MODEL.parent / "digits_heldout.npz"
BATCH = 8


class Digits:
    """Held-out digits with a little noise, over and over, never held."""

    def __init__(self, images: int) -> None:
        self._images = images
        with np.load(DIGITS) as stored:
            self._pool = stored["images"]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(0)
        for start in range(0, self._images, BATCH):
            chosen = self._pool[rng.integers(0, len(self._pool), min(BATCH, self._images - start))]
            yield {"images": (chosen + rng.normal(0, 0.01, chosen.shape)).astype(np.float32)}


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks consistency_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    counts: list[int] = parser.parse_args(arguments).images
    model = loading.load(MODEL).model
    data_findings(model, Digits(64))
    print(f"{'images':>8}  {'consistency':>20}  {'calibrate':>20}")
    for count in counts:
        cells = []
        for work in (data_findings, calibrate):
            tracemalloc.start()
            began = time.perf_counter()
            work(model, Digits(count))
            seconds = time.perf_counter() - began
            cells.append(f"{tracemalloc.get_traced_memory()[1] / 2**20:8.2f} MiB {seconds:6.1f} s")
            tracemalloc.stop()
        print(f"{count:8d}  {cells[0]:>20}  {cells[1]:>20}", flush=True)
    return 0
