"""Times two models against each other in onnxruntime."""

from normfold.benchmarking.bench import BenchOptions, bench

__all__ = ["BenchOptions", "bench"]
