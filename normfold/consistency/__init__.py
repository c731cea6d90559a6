"""Does a model mean in evaluation what it meant in training?

The interface between the parts of this package:

- ``layers.batchnorm_layers(model) -> list[NormLayer]`` reads every BatchNormalization of constants.
- ``static.static_findings(model) -> list[Finding]`` needs the model alone.
- ``drift.data_findings(model, batches, …) -> DataReport`` compares running statistics with those of data.
- ``calibration.calibrate(model, batches, …) -> Calibrated`` re-estimates the running statistics.
- ``findings`` holds severities, baselines and exit codes; the finding itself is ``reporting.report.Finding``.
"""

from __future__ import annotations
