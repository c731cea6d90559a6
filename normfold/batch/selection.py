"""Which models a batch takes, and where each result goes. Everything that can be refused is refused here,
before any work."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from normfold.errors import InputError
from normfold.urls import is_url, plain_path

SUFFIX = ".onnx"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Selected:
    """One model of a batch.

    Attributes:
        source: path or URL of the model.
        relative: where its result goes in the output folder, parts joined by ``/``.
    """

    source: str
    relative: str


def is_many(argument: str) -> bool:
    """Whether an argument stands for any number of models: a folder or a pattern."""
    if is_url(argument):
        return argument.endswith("/") or _MAGIC.search(argument) is not None
    path = plain_path(argument)
    return Path(path).is_dir() or (_MAGIC.search(path) is not None and not os.path.lexists(path))


def select(arguments: Sequence[str], output: str | None) -> tuple[Selected, ...]:
    """Finds the models.

    A folder stands for every ``.onnx`` file in it and its sub-folders, a pattern (``**`` crosses folders) for
    the ``.onnx`` files that it matches; hidden files and folders are left out, and so is the output folder.
    Results keep their path relative to the folder, or to the part of the pattern in front of the first ``*``,
    ``?`` or ``[``.

    Args:
        arguments: files, folders, patterns and URLs of these, in the order of the report.
        output: folder of the results, ``None`` if nothing is written.

    Returns:
        The models: as given, those of one argument in the order of their paths.

    Raises:
        InputError: NF900 if an argument stands for no model, or if two results would have one name; NF901 if
            a folder cannot be read.
    """
    found: list[Selected] = []
    for argument in arguments:
        models = list(_models_of(argument, output))
        if not models:
            raise InputError(f"{argument}: no {SUFFIX} file there", code="NF900")
        found += models
    taken: dict[str, str] = {}
    for model in found if output is not None else ():
        if model.relative in taken:
            raise InputError(
                f"{taken[model.relative]} and {model.source} would be written to the same file "
                f"{model.relative!r}",
                code="NF900",
            )
        taken[model.relative] = model.source
    return tuple(found)


def join(output: str, relative: str) -> str:
    """Path or URL of a file in the output folder."""
    if is_url(output):
        return f"{output.rstrip('/')}/{relative}"
    return str(Path(output, *relative.split("/")))


def _models_of(argument: str, output: str | None) -> Iterator[Selected]:
    if is_url(argument):
        from normfold.loading.remote import list_models

        listed = list_models(argument, output)
        if listed is None:
            listed = [(argument, posixpath.basename(argument))]
        for url, relative in listed:
            yield Selected(url, relative)
        return
    path = plain_path(argument)
    magic = _MAGIC.search(path)
    if Path(path).is_dir():
        root, names = path, _walk(path)
    elif magic is not None and not os.path.lexists(path):
        root = os.path.dirname(path[: magic.start()])  # noqa: PTH120 - "/" of "/*" stays
        names = _matches(path, root)
    else:
        yield Selected(argument, Path(path).name)
        return
    for name in names:
        source = Path(root, name)
        if not _is_result(source, name, output):
            yield Selected(str(source), Path(name).as_posix())


def _matches(pattern: str, root: str) -> list[str]:
    """Paths of the model files that a pattern matches, relative to ``root``, in order."""
    found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - pathlib has no patterns with a root
    return sorted(
        os.path.relpath(name, root or ".")
        for name in found
        if name.lower().endswith(SUFFIX) and Path(name).is_file()
    )


def _walk(root: str) -> list[str]:
    """Paths of the model files below ``root``, relative to it, in order."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}", code="NF901") from error

    found = []
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.relpath(Path(folder, name), root)
            for name in files
            if name.lower().endswith(SUFFIX) and not name.startswith(".")
        ]
    return sorted(found)


def _is_result(source: Path, relative: str, output: str | None) -> bool:
    """Whether a file lies in the output folder, as what an earlier run wrote does. Folding a folder in place
    is not that."""
    if output is None or is_url(output):
        return False
    folder = Path(plain_path(output)).resolve()
    path = source.parent.resolve() / source.name
    return path.is_relative_to(folder) and path != folder / relative
