"""Fold rules broken one by one: do the tests notice, and does the proof?

``python -m tests.mutation`` runs every mutant of ``catalogue/`` in a process of its own, in which one module
of normfold is imported from changed text. The working tree is never touched.

* The **proof**: the mutant folds models of the generator in ``tests/fuzz`` that call the changed function.
  Where the independent reference says that the result is wrong, ``fold``'s proof has to reject it.
* The **tests** of the module, stopped at the first that fails.
"""
