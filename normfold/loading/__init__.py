"""Model files: the only code that reads or writes them."""

from normfold.loading.load import Loaded, load
from normfold.loading.save import SavedFiles, Staged, save, stage, stage_copy

__all__ = ["Loaded", "SavedFiles", "Staged", "load", "save", "stage", "stage_copy"]
