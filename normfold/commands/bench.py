"""Two models timed against each other."""

from __future__ import annotations

from normfold.benchmarking import BenchOptions
from normfold.benchmarking.bencher import Bencher
from normfold.commands.arguments import refuse_unfit_sizes
from normfold.commands.run import Run
from normfold.errors import MissingDependency
from normfold.loading import ModelLike
from normfold.progress import Progress
from normfold.reporting.report import Report
from normfold.runtime.client import Runtime, onnxruntime_installed
from normfold.runtime.execution_providers import options_by_provider, provider_name


def bench(
    a: ModelLike, b: ModelLike, options: BenchOptions | None = None, *, progress: Progress | None = None
) -> Report:
    """Times two models of the same signature in turns, per provider and batch size.

    Args:
        a: the first model: path, protobuf or onnx_ir model.
        b: the second.
        options: inputs, providers, effort.
        progress: is called with the name of each phase when it begins.

    Returns:
        The report with its ``measurements``. ``report.exit`` is 3 if a provider could not be exercised.

    Raises:
        InputError: a model or an option cannot be used.
        Inconclusive: NF208, no generated input runs.
        MissingDependency: onnxruntime is not installed.
    """
    options = options or BenchOptions()
    with Run("bench", progress) as run:
        if not onnxruntime_installed():
            raise MissingDependency(
                "bench needs onnxruntime: pip install 'normfold[cpu]' or 'normfold[cuda]'"
            )
        providers = list(dict.fromkeys(map(provider_name, options.providers)))
        chosen = options_by_provider(options.provider_options, providers)
        sources = run.load(a), run.load(b)
        refuse_unfit_sizes(sources[0].model, options.dims, options.shapes)
        with Runtime(options.timeout_seconds, chosen) as runtime:
            bencher = Bencher(sources, options, runtime, run.report)
            for batch in options.batches or (None,):
                with run.phase("inputs"):
                    arrays = bencher.inputs(batch)
                for provider in providers:
                    with run.phase("time"):
                        bencher.measure(provider, batch, arrays)
    return run.report
