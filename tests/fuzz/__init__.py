"""Random valid models, folded and judged by references that share no code with normfold.

``python -m tests.fuzz --minutes 30`` looks for a long time; ``tests/test_fuzz.py`` is the quick run.
``cases/`` holds what was found once, shrunk.

* ``draft``: a graph under construction, from drawn decisions.
* ``steps/``: the operators and spellings that can be added to it.
* ``generate``: how steps follow each other; a hypothesis strategy, so that what fails shrinks.
* ``judge``: what must be true of every fold; ``limit``: that it ends.
* ``runtime``: onnxruntime in a process of its own; ``jobs``: the processes of a run.
* ``census``: what the generated models made normfold do.
"""

from pathlib import Path

CASES = Path(__file__).parent / "cases"
"""Models that normfold once got wrong."""
