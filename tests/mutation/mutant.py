"""One mutant: one edit of one file, as text, which never touches the working tree."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Edit:
    """What is broken, and the text that breaks it: ``old`` occurs in the file, its first place is changed.

    ``equivalent``: why nothing could tell the mutant from the original, where that is so.
    """

    what: str
    old: str
    new: str
    equivalent: str | None = None


@dataclass(frozen=True)
class Mutant:
    """An edit of the module ``normfold/<path>``."""

    path: str
    edit: Edit

    @property
    def module(self) -> str:
        return "normfold." + self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def name(self) -> str:
        return f"{self.path}: {self.edit.what}"

    def source(self, root: Path) -> str:
        """The broken module.

        Raises:
            LookupError: the module has changed, and does not hold the text any more.
            SyntaxError: what the edit makes is not Python.
        """
        text = self._text(root)
        if self.edit.old not in text:
            raise LookupError(f"{self.name}: {self.edit.old!r} is not there any more")
        broken = text.replace(self.edit.old, self.edit.new, 1)
        compile(broken, self.path, "exec")
        return broken

    def lines(self, root: Path) -> Collection[int]:
        """The lines that run where the mutant differs: those of the statements that it changes, or all of the
        file where it runs once, on import."""
        text = self._text(root)
        first = text.partition(self.edit.old)[0].count("\n") + 1
        last = first + self.edit.old.rstrip().count("\n")
        found: set[int] = set()
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                inside = _own_lines(node) if isinstance(node, ast.stmt) and node is not function else range(0)
                if inside and inside.start <= last and first < inside.stop:
                    found.update(inside)
        return found or range(1, text.count("\n") + 2)

    def _text(self, root: Path) -> str:
        path = root / self.path
        return path.read_text() if path.exists() else ""


def _own_lines(statement: ast.stmt) -> range:
    """Its lines without those of the statements in it."""
    body = getattr(statement, "body", None)
    end = body[0].lineno - 1 if body else statement.end_lineno
    assert end is not None
    return range(statement.lineno, max(end, statement.lineno) + 1)


def mutants_of(path: str, *edits: Edit) -> list[Mutant]:
    return [Mutant(path, edit) for edit in edits]


class Substitute(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from text instead of its file."""

    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        assert found is not None and found.origin is not None
        return importlib.util.spec_from_file_location(
            name, found.origin, loader=self, submodule_search_locations=found.submodule_search_locations
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, str(module.__file__), "exec"), module.__dict__)

    def install(self) -> None:
        assert self._module not in sys.modules, f"{self._module} has been imported already"
        sys.meta_path.insert(0, self)
