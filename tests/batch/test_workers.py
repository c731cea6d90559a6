"""Workers that die, and a parent that does."""

from __future__ import annotations

import os
import signal
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest

from normfold.batch.workers import WorkerPool


class TestPool:
    def test_the_death_of_one_is_no_matter_to_another(self) -> None:
        with WorkerPool(2) as pool:
            other = pool.submit(pow, 2, 10)
            doomed = pool.submit(os._exit, 7)
            with pytest.raises(BrokenExecutor):
                doomed.result()
            assert other.result() == 1024
            assert [pool.submit(pow, 3, n).result() for n in range(4)] == [1, 3, 9, 27]

    def test_one_that_died_between_two_calls(self) -> None:
        with WorkerPool(1) as pool:
            pid = pool.submit(os.getpid).result()
            os.kill(pid, signal.SIGKILL)
            results = []
            while len(results) < 2:
                try:
                    results.append(pool.submit(os.getpid).result())
                except BrokenExecutor:
                    # Its death is noticed when the call is on its way, and is told.
                    results.append(None)
            assert results[-1] not in (None, pid)

    def test_errors_are_not_deaths(self) -> None:
        with WorkerPool(1) as pool:
            with pytest.raises(ZeroDivisionError):
                pool.submit(divmod, 1, 0).result()
            assert pool.submit(pow, 2, 2).result() == 4


@pytest.fixture
def batch(tools: Any, models: Path, pipe: Path, tmp_path: Path) -> Any:
    """A batch of two processes, one of which waits for the pipe to be written."""
    arguments = ("fold", pipe, models, "-o", tmp_path / "out", "-j2", "--no-verify", "--format", "json")
    return tools.start(*arguments)


def kill_reader(tools: Any, batch: Any, pipe: Path) -> None:
    with batch.reader_of(pipe) as pid:
        os.kill(pid, signal.SIGKILL)
        tools.until(lambda: is_dead(pid))


def is_dead(pid: int) -> bool:
    """Whether the process and all its threads have ended, waited for by the parent or not yet.

    A thread that is still ending holds the pipe open, and what is written then has no reader.
    """
    process = Path(f"/proc/{pid}")
    try:
        threads = len(list((process / "task").iterdir()))
        return threads <= 1 and (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class TestDeath:
    def test_of_one_worker_is_made_good(self, tools: Any, batch: Any, pipe: Path, tmp_path: Path) -> None:
        kill_reader(tools, batch, pipe)
        pipe.write_bytes(tools.content(6))
        ended = batch.end()
        assert ended.err == ""
        assert ended.code == 0
        assert [run["exit"] for run in ended.report["runs"]] == [0] * 4
        assert {"a.onnx", "c.onnx", "pipe.onnx", "sub/b.onnx"} <= set(tools.visible(tmp_path / "out"))

    def test_twice_is_told_of_that_model_only(
        self, tools: Any, batch: Any, pipe: Path, tmp_path: Path
    ) -> None:
        kill_reader(tools, batch, pipe)
        kill_reader(tools, batch, pipe)
        ended = batch.end()
        assert ended.code == 4
        (complaint,) = ended.err.splitlines()
        assert complaint.startswith(f"normfold: error NF930: {pipe}: ")
        dead, *others = ended.report["runs"]
        assert (dead["exit"], dead["inputs"]) == (4, [{"path": str(pipe)}])
        assert [finding["code"] for finding in dead["findings"]] == ["NF930"]
        assert [run["exit"] for run in others] == [0] * 3
        assert {"a.onnx", "c.onnx", "sub/b.onnx"} <= set(tools.visible(tmp_path / "out"))


class TestParent:
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
    )
    @pytest.mark.parametrize("whom", ["parent", "all"])
    def test_takes_its_workers_with_it(
        self, tools: Any, batch: Any, pipe: Path, tmp_path: Path, number: int, code: int, whom: str
    ) -> None:
        with batch.reader_of(pipe):
            for pid in batch.members() if whom == "all" else [batch.process.pid]:
                os.kill(pid, number)
            ended = batch.end()
        assert ended.code == code
        tools.until(lambda: not batch.members())
        if number != signal.SIGKILL:
            said = ended.err.rstrip("\n")
            assert "\n" not in said, said
            assert said.startswith("normfold: interrupted: ")
            assert said.endswith(" of 4 models done; the same command goes on from there")
            assert tools.temporaries(tmp_path) == []
