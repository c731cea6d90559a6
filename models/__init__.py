"""Models that tests and benchmarks share. Never part of the installed package.

* :mod:`models.lenet`, :mod:`models.train_lenet`: a small trained network; its files are in ``trained/``.
* :mod:`models.zoo`: one small torch network per family, with random weights.
* :mod:`models.export`: writes networks of the zoo as ONNX.
* :mod:`models.real`: trained models that other people ship, fetched from the package registry on demand.

Only this package may import torch; ``models.real`` and ``models.trained`` do without it.
"""
