"""Runs one other optimiser: ``PEER_PYTHON peer_tools.py TOOL IN OUT``. Imports nothing of this repository.

It is started with the interpreter of an environment that has the tools (docs/benchmarks.md).
"""

from __future__ import annotations

import sys


def onnxsim(source: str, target: str) -> None:
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(simplified, target)


def onnxslim(source: str, target: str) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def onnxoptimizer(source: str, target: str) -> None:
    import onnx
    import onnxoptimizer

    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    onnx.save(onnxoptimizer.optimize(onnx.load(source), passes, fixed_point=True), target)


def onnxscript(source: str, target: str) -> None:
    import onnx
    import onnxscript.optimizer
    import onnxscript.rewriter

    model = onnxscript.optimizer.optimize(onnx.load(source))
    onnx.save(onnxscript.rewriter.rewrite(model), target)


def onnxruntime(source: str, target: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = target
    options.log_severity_level = 3
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def aimet(source: str, target: str) -> None:
    import onnx
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight

    model = onnx.load(source)
    fold_all_batch_norms_to_weight(model)
    onnx.save(model, target)


TOOLS = {tool.__name__: tool for tool in (onnxsim, onnxslim, onnxoptimizer, onnxscript, onnxruntime, aimet)}


if __name__ == "__main__":
    TOOLS[sys.argv[1]](*sys.argv[2:])
