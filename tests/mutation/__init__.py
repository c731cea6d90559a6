"""Fold rules broken one by one: do the tests notice, and does the proof?

``python -m tests.mutation`` runs every mutant of ``catalogue/`` in a process of its own, in which one module
of normfold is imported from changed text. The working tree is never touched.

* The **tests**: a survey of the unbroken code knows the lines that each test runs. The mutant is asked of
  every test that runs the changed lines, until one fails.
* The **proof**: the survey keeps the models that the tests fold, and makes some of what tests ask of a single
  node. Of those whose fold runs the changed lines the mutant folds some, first those of the test
  that failed. Where the references of ``tests/fuzz`` say that the result is wrong, what ``fold`` verifies has
  to reject it.
"""
