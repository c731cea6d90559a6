"""Models behind URLs: any file system that fsspec knows, and ``file://`` for this machine's own.

A model is copied to this machine before anything else is done, and its result from it afterwards. A result
appears under its name in one step: an object store makes an object visible when it is complete; anywhere else
the copy has a hidden name until it is complete and is then moved.
"""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normfold.errors import InputError, MissingDependency, NormfoldError, OutputError
from normfold.loading.messages import one_line
from normfold.urls import is_url

_CHUNK = 1 << 20
_MAGIC = re.compile(r"[*?\[]")
_SUFFIX = ".normfold-tmp"


@dataclass(frozen=True)
class RemoteFile:
    """One file behind a URL.

    Attributes:
        url: as the user gave it.
        path: of the file in its file system.
    """

    url: str
    path: str
    _system: Any

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path.rstrip("/"))

    def beside(self, name: str) -> RemoteFile:
        """A file relative to the folder of this one."""
        return RemoteFile(
            f"{posixpath.dirname(self.url)}/{name}",
            f"{posixpath.dirname(self.path)}/{name}",
            self._system,
        )

    def size(self) -> int | None:
        """Bytes, ``None`` where there is no such file."""
        with as_input_error(self.url):
            try:
                info = self._system.info(self.path)
            except FileNotFoundError:
                return None
            return int(info["size"]) if info.get("type") == "file" else None

    def sha256(self) -> str | None:
        """SHA-256 of the content, read once; ``None`` where there is no such file."""
        digest = hashlib.sha256()
        with as_input_error(self.url):
            try:
                with self._system.open(self.path, "rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
            except FileNotFoundError:
                return None
        return digest.hexdigest()

    def read(self) -> bytes | None:
        """The whole content; ``None`` where there is no such file."""
        with as_input_error(self.url):
            try:
                content: bytes = self._system.cat_file(self.path)
            except FileNotFoundError:
                return None
            return content

    def fetch(self, target: Path) -> None:
        """Copies the file to ``target``.

        Raises:
            InputError: NF901.
        """
        with as_input_error(self.url):
            if self._system.isdir(self.path):
                raise InputError(f"{self.url}: is a folder, not a model file", code="NF901")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self.path, str(target))

    def publish(self, source: Path) -> None:
        """Makes the content of ``source`` appear under this name, all at once.

        Raises:
            OutputError: NF920; the old content is untouched.
        """
        with as_output_error(self.url):
            if _puts_in_one_step(self._system):
                self._system.put_file(str(source), self.path)
                return
            folder = posixpath.dirname(self.path)
            with contextlib.suppress(NotImplementedError):
                self._system.makedirs(folder, exist_ok=True)
            with source.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # The same content has the same temporary name, so a copy that was cut short is taken up again.
            hidden = f"{folder}/.{self.name}.{digest[:12]}{_SUFFIX}"
            try:
                self._system.put_file(str(source), hidden)
                self._system.mv(hidden, self.path)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._system.rm_file(hidden)
                raise

    def remove(self) -> None:
        """Removes the file if that is possible."""
        with contextlib.suppress(Exception):
            self._system.rm_file(self.path)


def remote_file(url: str) -> RemoteFile:
    """Finds the file system of a URL.

    Raises:
        InputError: NF901 if fsspec knows no such file system.
        MissingDependency: fsspec, or what it needs for this protocol, is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependency(f"{url}: URLs need fsspec: pip install 'normfold[remote]'") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependency(f"{url}: {one_line(error)}") from error
    except Exception as error:
        raise InputError(f"{url}: {one_line(error)}", code="NF901") from error
    return RemoteFile(url, str(path), system)


def list_models(url: str, output: str | None) -> list[tuple[str, str]] | None:
    """Lists the ``.onnx`` files of a folder or a pattern, but for hidden ones and for earlier results.

    Args:
        url: a folder, a pattern, or a file.
        output: where results go, ``None`` if nowhere.

    Returns:
        URL of each file, and its path relative to the folder or to the fixed part of the pattern, in order;
        ``None`` if ``url`` is neither a folder nor a pattern.

    Raises:
        InputError: NF901.
        MissingDependency: as ``remote_file``.
    """
    place = remote_file(url)
    results = remote_file(output).path.rstrip("/") if output is not None and is_url(output) else None
    system, magic = place._system, _MAGIC.search(url)
    with as_input_error(url):
        if magic is not None and not system.isfile(place.path):
            base = posixpath.dirname(url[: magic.start()])
            found = [path for path in system.glob(place.path) if system.isfile(path)]
        elif system.isdir(place.path):
            base = url.rstrip("/")
            found = system.find(place.path)
        else:
            return None
        root = remote_file(base).path.rstrip("/")
    listed = []
    for path in sorted(map(str, found)):
        relative = path[len(root) + 1 :]
        hidden = any(part.startswith(".") for part in relative.split("/"))
        earlier = results is not None and path.startswith(f"{results}/") and path != f"{results}/{relative}"
        if path.lower().endswith(".onnx") and not hidden and not earlier:
            listed.append((f"{base}/{relative}", relative))
    return listed


def _puts_in_one_step(system: Any) -> bool:
    """Whether a file is seen only once it is complete: the object stores, which fsspec drives asynchronously
    and which have no move of their own."""
    from fsspec.asyn import AsyncFileSystem

    return isinstance(system, AsyncFileSystem) and type(system).mv is AsyncFileSystem.mv


@contextlib.contextmanager
def as_input_error(url: str) -> Iterator[None]:
    """Turns what a driver raises, which may be anything, into one line."""
    try:
        yield
    except NormfoldError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such file", code="NF901") from error
    except Exception as error:
        raise InputError(f"{url}: cannot be read: {_reason(error)}", code="NF901") from error


@contextlib.contextmanager
def as_output_error(url: str) -> Iterator[None]:
    """The same for writing."""
    try:
        yield
    except NormfoldError:
        raise
    except Exception as error:
        raise OutputError(f"{url}: cannot be written: {_reason(error)}", code="NF920") from error


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__
