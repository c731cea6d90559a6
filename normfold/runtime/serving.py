"""The process that holds onnxruntime: loads sessions and runs them on request, one JSON line per request and
answer.

Arrays travel in ``.npz`` files, keyed ``arr_0``, ``arr_1``, … in the order of the request's or
the answer's names.

Requests:
    ``{"op": "open", "session": n, "model": path, "provider": name, "options": {…}, "optimize": bool}``
    ``{"op": "run", "session": n, "names": […], "feeds": file, "outputs": […] or null, "results": file}``
    ``{"op": "close", "session": n}``

Every answer has ``ok``; where it is false, ``error`` is one line.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

import numpy as np

from normfold.runtime.opening import open_session


class Sessions:
    """Open sessions by number."""

    def __init__(self) -> None:
        self._sessions: dict[int, Any] = {}

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers one request."""
        operation = request["op"]
        if operation == "open":
            return self._open(request)
        if operation == "run":
            return self._run(request)
        self._sessions.pop(request["session"], None)
        return {}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        import onnxruntime as ort

        provider = request["provider"]
        if provider not in ort.get_available_providers():
            raise RuntimeError(f"{provider} is not registered in this build of onnxruntime")
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        levels = ort.GraphOptimizationLevel
        settings.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if request["optimize"] else levels.ORT_DISABLE_ALL
        )
        session = open_session(request["model"], settings, provider, request["options"])
        self._sessions[request["session"]] = session
        return {
            "providers": session.get_providers(),
            "outputs": [output.name for output in session.get_outputs()],
            "assigned": _assignment(session),
            "version": ort.__version__,
        }

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        session = self._sessions[request["session"]]
        with np.load(request["feeds"], allow_pickle=False) as stored:
            arrays = [stored[f"arr_{i}"] for i in range(len(request["names"]))]
        feeds = {
            name: array.astype(object) if array.dtype.kind == "U" else array
            for name, array in zip(request["names"], arrays, strict=True)
        }
        results = session.run(request["outputs"], feeds)
        kept = [_storable(result) for result in results]
        np.savez(request["results"], *kept)
        return {"names": request["outputs"] or [output.name for output in session.get_outputs()]}


def _assignment(session: Any) -> dict[str, list[str]]:
    """Nodes by the provider that runs them, each as ``operator:name``, or ``operator`` where it has no name.

    Empty where onnxruntime cannot say.
    """
    try:
        subgraphs = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):
        return {}
    assigned: dict[str, list[str]] = {}
    for subgraph in subgraphs:
        nodes = [f"{node.op_type}:{node.name}".rstrip(":") for node in subgraph.get_nodes()]
        assigned.setdefault(subgraph.ep_name, []).extend(nodes)
    return assigned


def _storable(result: Any) -> np.ndarray:
    if not isinstance(result, np.ndarray):
        raise TypeError(f"an output is a {type(result).__name__}, and only tensors can be compared")
    return result.astype(str) if result.dtype.kind == "O" else result


def _listen(requests: queue.SimpleQueue[str]) -> None:
    """Passes requests on, and ends the process with its parent, also in the middle of a run."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def main() -> None:
    """Serves requests from standard input until it closes."""
    # Native code may print to standard output; the answers need a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent decides.
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    sessions = Sessions()
    while True:
        line = requests.get()
        try:
            answer = {"ok": True, **sessions.handle(json.loads(line))}
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            answer = {"ok": False, "error": text[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
