"""Two models timed in turns in onnxruntime, and the ratio of their times."""

from normfold.benchmarking.bencher import BenchOptions

__all__ = ["BenchOptions"]
