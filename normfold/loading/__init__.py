"""Model files: the only code that reads or writes them."""

from normfold.loading.load import Loaded, from_proto, load
from normfold.loading.save import SavedFiles, Staged, check, save, stage, stage_copy, to_proto
from normfold.loading.source import ModelLike, Source, open_source
from normfold.loading.stream import model_sha256

__all__ = [
    "Loaded",
    "ModelLike",
    "SavedFiles",
    "Source",
    "Staged",
    "check",
    "from_proto",
    "load",
    "model_sha256",
    "open_source",
    "save",
    "stage",
    "stage_copy",
    "to_proto",
]
