"""Where a result goes: files made under temporary names beside their destination, or a stream."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from normfold.errors import OutputError
from normfold.loading.leftovers import create_temporary, data_name, remove_leftovers
from normfold.loading.load import STREAM, file_sha256
from normfold.loading.remote import RemoteFile, remote_file
from normfold.loading.transfer import DigestingSink, Sink
from normfold.scratch import ScratchFolder
from normfold.signals import interrupts_later


class Destination:
    """Files being made beside ``out``.

    Attributes:
        model: the model file under its temporary name, once it is written.
        model_sha256: of its content.
        data: name and SHA-256 of each external data file.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._made: list[Path] = []
        self._locks: list[BinaryIO] = []
        self.data: dict[str, str] = {}
        self.model, self.model_sha256 = out, ""

    def write_data(self, write: Callable[[Sink], object]) -> tuple[str, Path]:
        """Writes external data under a temporary name.

        Returns:
            The name that ``settle_data`` will give it, and the temporary file.

        Raises:
            OutputError: NF920 if a file of that name but another content exists.
        """
        path, file = self._temporary()
        sink = DigestingSink(file)
        write(sink)
        _sync(file)
        digest = sink.sha256
        name = data_name(self._out, digest)
        self.data[name] = digest
        final = self._out.with_name(name)
        if final.exists() and file_sha256(final) != digest:
            raise OutputError(f"{name} exists and is not what its name says; move it away", code="NF920")
        return name, path

    def write_model(self, write: Callable[[Sink], object]) -> None:
        """Writes the model under a temporary name."""
        self.model, file = self._temporary()
        with contextlib.suppress(FileNotFoundError):
            self.model.chmod(stat.S_IMODE(self._out.stat().st_mode))
        sink = DigestingSink(file)
        write(sink)
        _sync(file)
        self.model_sha256 = sink.sha256

    def settle_data(self, name: str, temporary: Path) -> None:
        """Gives data its final name.

        Called after the model is written, so that from the start some file mentions the name. A file that is
        there already has the same content; whoever has it mapped keeps the old one.
        """
        final = self._out.with_name(name)
        if not final.exists():
            self._made.append(final)
        temporary.replace(final)
        _sync_folder(self._out.parent)

    def publish(self) -> None:
        # From here on the data belongs to the destination: an interrupt just after the rename must not remove
        # it.
        made, self._made = self._made, []
        try:
            if self._is_there_already():
                # A worker that died had published it; readers keep the file that they have open.
                os.utime(self._out)
                self.model.unlink()
            else:
                self.model.replace(self._out)
        except OSError:
            self._made = made
            raise
        _sync_folder(self._out.parent)
        self._close()
        remove_leftovers(self._out)

    def _is_there_already(self) -> bool:
        try:
            same_size = self._out.stat().st_size == self.model.stat().st_size
            return same_size and file_sha256(self._out) == self.model_sha256
        except FileNotFoundError:
            return False

    def discard(self) -> None:
        with interrupts_later():
            for path in self._made:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            self._made.clear()
            self._close()

    def _temporary(self) -> tuple[Path, BinaryIO]:
        with interrupts_later():
            path, file = create_temporary(self._out)
            self._made.append(path)
            self._locks.append(file)
        return path, file

    def _close(self) -> None:
        for file in self._locks:
            with contextlib.suppress(OSError):
                file.close()
        self._locks.clear()


class StreamDestination(Destination):
    """A destination that cannot be renamed onto: standard output, a pipe or a device."""

    def __init__(self, out: str) -> None:
        self._folder = ScratchFolder()
        self._stream = out
        super().__init__(self._folder.path / "out.onnx")

    def publish(self) -> None:
        try:
            with self.model.open("rb") as staged:
                if self._stream == STREAM:
                    shutil.copyfileobj(staged, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
                else:
                    with Path(self._stream).open("wb") as stream:
                        shutil.copyfileobj(staged, stream)
        finally:
            self.discard()

    def discard(self) -> None:
        super().discard()
        self._folder.cleanup()


class RemoteDestination(Destination):
    """A destination behind a URL: made on this machine, then copied there, its external data first."""

    def __init__(self, url: str) -> None:
        self._remote = remote_file(url)
        self._folder = ScratchFolder()
        super().__init__(self._folder.path / self._remote.name)

    def publish(self) -> None:
        copied: list[RemoteFile] = []
        try:
            for name in self.data:
                local, remote = self._folder.path / name, self._remote.beside(name)
                # The name is made of the content.
                if remote.size() != local.stat().st_size:
                    copied.append(remote)
                    remote.publish(local)
            self._remote.publish(self.model)
        except BaseException:
            for remote in copied:
                remote.remove()
            raise
        self.discard()

    def discard(self) -> None:
        super().discard()
        self._folder.cleanup()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes renames in ``folder`` durable, where the platform lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def as_output_error(name: str) -> Iterator[None]:
    """Turns what the operating system says into one line that names the output."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{name}: cannot be written: {error.strerror or error}", code="NF920") from error
    except OutputError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise OutputError(f"{name}: {error}", code=error.code) from error
