"""Damaged model files, and what has to be true of a fold of each.

    python -m tests.loading.damage --minutes 30 --seed 0

folds damaged files until the time is up, and keeps in ``--keep DIR`` every file that ends in something else
than a valid result or one clear line.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
import onnx
from onnx import numpy_helper, parser

import normfold
from normfold.errors import NormfoldError

SECONDS_PER_FILE = 20

PLAIN = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)
<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] g = {1.5, -0.5}, float[2] b = {0.25, 1},
 float[2] m = {0.5, 2}, float[2] v = {0.75, 3}>
{ c = Conv(x, w)  n = BatchNormalization(c, g, b, m, v)  y = Relu(n) }
"""
NESTED = """
<ir_version: 8, opset_import: ["" : 18, "local" : 1]>
net (bool p, float[N, 4] x) => (float[N, 4] y)
<float[4] w = {1, 2, 3, 4}, float[4] h = {0.5, 0.5, 0.5, 0.5}>
{
    z = If (p) <
        then_branch = then () => (float[N, 4] t) { u = local.twice(x)  t = Mul(u, w) },
        else_branch = other () => (float[N, 4] e)
            { k = Constant<value = float[4] {1, 1, 2, 2}>()  s = Sub(x, k)  e = Add(s, h) }
    >
    y = Clip(z)
}
<domain: "local", opset_import: ["" : 18]> twice (a) => (b) { b = Add(a, a) }
"""
SHAPES = """
<ir_version: 9, opset_import: ["" : 21]>
net (float[N, 6, 8] x) => (float[N, 6, 8] y)
<int64[3] into = {0, 3, -1}, int64[3] back = {0, 6, 8}, float[3] s = {1, 1, 1}, float[3] t = {0, 0, 0},
 float[6, 1] g = {1, 2, 3, 4, 5, 6}, int64[1] ax = {1}>
{
    r = Reshape(x, into)
    i = InstanceNormalization<epsilon = 0.001>(r, s, t)
    q = Reshape(i, back)
    d = Mul(q, g)
    z = Transpose<perm = [0, 2, 1]>(d)
    y = Transpose<perm = [0, 2, 1]>(z)
}
"""


def corpus(folder: Path) -> list[Path]:
    """Writes the sound models that damage begins with; the last one has external data."""
    paths = []
    for name, text in (("plain", PLAIN), ("nested", NESTED), ("shapes", SHAPES)):
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(parser.parse_model(text).SerializeToString())
    dense = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 20] x) => (float[N, 20] y) '
        "<float[1] s = {2}> { z = MatMul(x, w)  y = Mul(z, s) }"
    )
    weight = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    dense.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    paths.append(folder / "outside.onnx")
    onnx.save(dense, paths[-1], save_as_external_data=True, location="weights.bin", size_threshold=0)
    return paths


def damaged(content: bytes, chance: np.random.Generator) -> bytes:
    """Flips bits, cuts the end off, or repeats, drops or overwrites a stretch."""
    data = bytearray(content)
    kind = chance.integers(0, 10)
    start, length = int(chance.integers(0, len(data))), int(chance.integers(1, 20))
    if kind < 6:
        for position in chance.integers(0, len(data), chance.integers(1, 5)):
            data[position] ^= 1 << int(chance.integers(0, 8))
    elif kind == 6:
        del data[start:]
    elif kind == 7:
        del data[start : start + length]
    elif kind == 8:
        data[start:start] = data[start : start + length]
    else:
        data[start : start + length] = chance.integers(0, 256, length, dtype=np.uint8).tobytes()
    return bytes(data)


class TooLong(BaseException):
    """A fold did not end in time."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Interrupts the block."""

    def stop(_: int, __: FrameType | None) -> NoReturn:
        raise TooLong(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path) -> str:
    """Folds one file, and says how it ended.

    Raises:
        AssertionError: neither with a valid result nor with one line and its code, or with other files.
    """
    folder, out = path.parent, path.parent / "out.onnx"
    before = {each.name for each in folder.iterdir()}
    try:
        with time_limit(SECONDS_PER_FILE):
            report = normfold.fold(path, out, verify=False).report
    except NormfoldError as error:
        assert error.exit_code == 2, repr(error)
        assert error.code is not None, repr(error)
        assert str(error).isprintable(), repr(error)
        assert {each.name for each in folder.iterdir()} == before
        return str(error.code)
    except (Exception, TooLong) as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    written = {"out.onnx", *(item["path"] for item in report.outputs[0].get("data", ()))}
    assert {each.name for each in folder.iterdir()} == before | written
    onnx.load(out)
    for name in written:
        (folder / name).unlink()
    return "folded"


def main(arguments: list[str]) -> int:
    """Runs until the time is up; 1 if anything was found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path, default=None)
    chosen = options.parse_args(arguments)
    chance = np.random.default_rng(chosen.seed)
    found: Counter[str] = Counter()
    failures = 0
    end = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as place:
        sound = [(path, path.read_bytes()) for path in corpus(Path(place))]
        while time.monotonic() < end:
            path, content = sound[chance.integers(0, len(sound))]
            path.write_bytes(damaged(content, chance))
            try:
                found[outcome(path)] += 1
            except AssertionError as error:
                failures += 1
                print(f"{path.name}: {error}", file=sys.stderr)
                if chosen.keep is not None:
                    chosen.keep.mkdir(parents=True, exist_ok=True)
                    (chosen.keep / f"{failures}-{path.name}").write_bytes(path.read_bytes())
            path.write_bytes(content)
    print(f"{sum(found.values()) + failures} damaged files, seed {chosen.seed}: {failures} failures")
    print(", ".join(f"{name} {count}" for name, count in found.most_common()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
