"""The process that times two models: nothing but numpy and onnxruntime in it, both sessions side by side.

Standard input holds one JSON request, standard output takes one JSON answer:

    ``{"models": [path, path], "provider": name, "options": {…}, "device": name or null, "feeds": file,
    "names": […], "threads": n, "rounds": n, "warmup_seconds": s, "round_seconds": s}``

Inputs and outputs stay on ``device``, where there is one. ``feeds`` is an ``.npz`` keyed ``arr_0``,
``arr_1``, …, in the order of the names; both models take the same arrays. The answer has ``ok``; where it is
false, ``error`` is one line. Otherwise ``times``: seconds per run of either model in each round,
``runs_per_round`` and ``io_binding``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from normfold.runtime.opening import open_session

_LONGEST_ROUND = 1000

Run = Callable[[], object]


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one request."""
    with np.load(request["feeds"], allow_pickle=False) as stored:
        arrays = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    arrays = [array.astype(object) if array.dtype.kind == "U" else array for array in arrays]
    device = request["device"] if all(array.dtype.kind != "O" for array in arrays) else None
    runs = [_prepared(model, arrays, request, device) for model in request["models"]]
    slowest = max(_warm_up(run, request["warmup_seconds"]) for run in runs)
    count = max(1, min(_LONGEST_ROUND, round(request["round_seconds"] / slowest)))
    times: list[list[float]] = [[], []]
    for turn in range(request["rounds"]):
        # Whoever goes second finds warmer caches: they take turns at that too.
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            runs[which]()
            began = time.perf_counter()
            for _ in range(count):
                runs[which]()
            times[which].append((time.perf_counter() - began) / count)
    return {"times": times, "runs_per_round": count, "io_binding": device is not None}


def _warm_up(run: Run, seconds: float) -> float:
    """Runs until ``seconds`` have passed, three times at least; returns the shortest time."""
    best, began = float("inf"), time.perf_counter()
    done = 0
    while done < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        done += 1
    return best


def _prepared(model: str, arrays: list[np.ndarray], request: dict[str, Any], device: str | None) -> Run:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    # Spinning thread pools of two sessions disturb each other.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.intra_op_num_threads = request["threads"]
    session = open_session(model, settings, request["provider"], request["options"])
    if device is None:
        feeds = dict(zip(request["names"], arrays, strict=True))
        return lambda: session.run(None, feeds)
    binding = session.io_binding()
    for name, array in zip(request["names"], arrays, strict=True):
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def main() -> None:
    """Answers the request on standard input."""
    # Native code may print to standard output; the answer needs a channel of its own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer = {"ok": True, **measure(json.load(sys.stdin))}
    except Exception as error:
        answer = {"ok": False, "error": (" ".join(str(error).split()) or type(error).__name__)[:500]}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
