"""Whatever ends a fold, what it had begun is taken back, or removed by the next."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from tests.limits import largest_file


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The folder for temporary files."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


CASES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("jobs", [(), ("--jobs", "1")], ids=["one", "batch"])
@pytest.mark.parametrize("name", ["a.onnx", "c.onnx"], ids=["single", "external"])
class TestStaged:
    """The proof of a staged result takes long enough to be interrupted."""

    def started(self, tools: Any, models: Path, name: str, scratch: Path, jobs: tuple[str, ...]) -> Any:
        out = models.parent / "out"
        out.mkdir(exist_ok=True)
        arguments = ("fold", models / name, "-o", f"{out}/", "--thorough", *jobs)
        started = tools.start(*arguments, env={"TMPDIR": str(scratch)})
        tools.until(lambda: tools.temporaries(out))
        return started

    @pytest.mark.parametrize(("number", "code"), CASES, ids=["INT", "TERM", "HUP"])
    def test_is_taken_back(
        self,
        tools: Any,
        models: Path,
        name: str,
        scratch: Path,
        jobs: tuple[str, ...],
        number: int,
        code: int,
    ) -> None:
        started = self.started(tools, models, name, scratch, jobs)
        os.kill(started.process.pid, number)
        ended = started.end()
        assert ended.code == code, ended.err
        assert len(ended.err.splitlines()) == len(jobs[:1]), ended.err
        tools.until(lambda: not started.members())
        assert [path for path in (models.parent / "out").rglob("*") if path.is_file()] == []
        # onnxruntime has a folder of its own there.
        assert [path for path in scratch.iterdir() if path.name.startswith(".normfold-")] == []

    def test_is_removed_by_the_next_run(
        self, tools: Any, models: Path, name: str, scratch: Path, jobs: tuple[str, ...]
    ) -> None:
        started = self.started(tools, models, name, scratch, jobs)
        os.kill(started.process.pid, signal.SIGKILL)
        started.end()
        tools.until(lambda: not started.members())
        out = models.parent / "out"
        assert [item for item in tools.visible(out) if not item.endswith(".data")] == []
        if not jobs:
            assert tools.temporaries(out)
        ended = tools.run("fold", models / name, "-o", f"{out}/", *jobs, env={"TMPDIR": str(scratch)})
        assert ended.code == 0
        assert tools.temporaries(out) == []
        assert [path for path in scratch.iterdir() if path.name.startswith(".normfold-")] == []
        clean = models.parent / "clean"
        clean.mkdir()
        assert tools.run("fold", models / name, "-o", f"{clean}/", *jobs).code == 0
        assert tools.visible(out) == tools.visible(clean)


class TestSweep:
    def test_removes_what_a_killed_batch_left_of_another_model(
        self, tools: Any, models: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out" / "sub"
        out.mkdir(parents=True)
        left = out / ".gone.onnx.0123456789ab.normfold-tmp"
        left.touch()
        assert tools.run("fold", models / "a.onnx", models / "c.onnx", "-o", tmp_path / "out").code == 0
        assert not left.exists()


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", options, "none", str(folder)], check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with mounted(tmp_path / "disk", "size=64k") as folder:
        yield folder


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to."""
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o555)
        yield tmp_path / "closed"
        return
    # Root may write wherever the file system lets anybody.
    with mounted(tmp_path / "closed", "ro") as folder:
        yield folder


@pytest.mark.parametrize("jobs", [(), ("--jobs", "1")], ids=["one", "batch"])
class TestNoRoom:
    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        """Too large for the disk, with its weight inside."""
        model = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 200] x) => (float[N, 200] y) '
            "<float[1] s = {2}> { z = MatMul(x, w)  y = Mul(z, s) }"
        )
        weight = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        (tmp_path / "large.onnx").write_bytes(model.SerializeToString())
        return tmp_path / "large.onnx"

    def test_on_the_disk(self, tools: Any, large: Path, small_disk: Path, jobs: tuple[str, ...]) -> None:
        (small_disk / "large.onnx").write_bytes(b"old")
        ended = tools.run("fold", large, "-o", f"{small_disk}/", *jobs)
        assert ended.code == 2
        (complaint,) = ended.err.splitlines()
        assert "NF920" in complaint
        assert "No space left" in complaint
        assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["large.onnx"]
        assert (small_disk / "large.onnx").read_bytes() == b"old"

    def test_for_the_file(self, tools: Any, large: Path, tmp_path: Path, jobs: tuple[str, ...]) -> None:
        (tmp_path / "out").mkdir()
        with largest_file(100_000):
            ended = tools.run("fold", large, "-o", f"{tmp_path / 'out'}/", *jobs)
        assert ended.code == 2
        (complaint,) = ended.err.splitlines()
        assert "NF920" in complaint
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []

    def test_in_a_folder_that_is_read_only(
        self, tools: Any, large: Path, closed: Path, jobs: tuple[str, ...]
    ) -> None:
        ended = tools.run("fold", large, "-o", f"{closed}/", *jobs)
        assert ended.code == 2
        (complaint,) = ended.err.splitlines()
        assert "NF920" in complaint
        assert "Read-only file system" in complaint or "Permission denied" in complaint
        assert list(closed.iterdir()) == []
