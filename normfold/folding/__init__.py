"""The fold of a model in memory: prepare, recognise, plan, rewrite. No files, no verification."""

from normfold.folding.folder import Folded, Prepared, fold_model, fold_prepared, prepare

__all__ = ["Folded", "Prepared", "fold_model", "fold_prepared", "prepare"]
