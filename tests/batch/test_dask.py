"""The same batch on a Dask cluster of this machine, with workers that die."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import normfold
from normfold.errors import InputError

distributed = pytest.importorskip("distributed")

MODELS = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and two worker processes of one thread each, which are started again when they die."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


@pytest.fixture
def many(tools: Any, tmp_path: Path) -> Path:
    """More models than workers."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(MODELS):
        (folder / f"{number}.onnx").write_bytes(tools.content(number))
    return folder


class Watch:
    """Notes every file that appears under a name."""

    def __init__(self, folder: Path) -> None:
        self.seen: dict[str, set[int]] = {}
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._look()
            time.sleep(0.002)
        self._look()

    def _look(self) -> None:
        for path in self._folder.glob("*.onnx"):
            with contextlib.suppress(FileNotFoundError):
                self.seen.setdefault(path.name, set()).add(path.stat().st_ino)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_same_bytes_as_here(tools: Any, cluster: Any, many: Path, tmp_path: Path) -> None:
    report = normfold.fold_many(
        [f"file://{many}"], f"file://{tmp_path}/out", dask=cluster.scheduler_address, verify=False
    )
    assert report.exit == 0
    assert normfold.fold_many([many], tmp_path / "here", verify=False).exit == 0
    assert tools.visible(tmp_path / "out") == [f"{number}.onnx" for number in range(MODELS)]
    for name in tools.visible(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    again = normfold.fold_many([many], tmp_path / "out", dask=cluster.scheduler_address, verify=False)
    assert again.summary["skipped"] == MODELS


def test_one_bad_model(tools: Any, cluster: Any, many: Path, tmp_path: Path) -> None:
    (many / "3.onnx").write_bytes(b"no model")
    ended = tools.run(
        *("fold", many, "-o", tmp_path / "out", "--no-verify", "--format", "json"),
        *("--dask", cluster.scheduler_address),
    )
    assert ended.code == 2
    (complaint,) = ended.err.splitlines()
    assert "NF902" in complaint
    assert [run["exit"] for run in ended.report["runs"]] == [0, 0, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("force", [False, True])
def test_a_worker_killed_in_between(
    tools: Any, cluster: Any, many: Path, tmp_path: Path, force: bool
) -> None:
    """Nothing is lost, and every result is published once."""
    out = tmp_path / "out"
    out.mkdir()
    killed: list[int] = []
    ended: list[int] = []

    def pids() -> list[int]:
        """Of the workers there are; a nanny has none for a moment after its worker died."""
        while True:
            found = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            if found:
                return found
            time.sleep(0.01)

    def kill_one(number: int, _: object) -> None:
        ended.append(number)
        if len(ended) in (2, 5):
            killed.append(pids()[0])
            os.kill(killed[-1], signal.SIGKILL)

    with Watch(out) as watch:
        report = normfold.fold_many(
            [many], out, dask=cluster.scheduler_address, verify=False, force=force, on_done=kill_one
        )
    assert len(killed) == 2
    assert report.exit == 0
    assert sorted(ended) == list(range(MODELS))
    assert [run.inputs[0]["path"] for run in report.runs] == [str(many / f"{n}.onnx") for n in range(MODELS)]
    assert tools.visible(out) == [f"{number}.onnx" for number in range(MODELS)]
    assert tools.temporaries(out) == []
    assert {name: len(files) for name, files in watch.seen.items()} == {
        f"{number}.onnx": 1 for number in range(MODELS)
    }


def test_a_model_that_kills_its_worker(
    cluster: Any, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask gives up after some deaths, and so do we: the others are done."""
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    pipe = many / "pipe.onnx"
    os.mkfifo(pipe)
    stop = threading.Event()

    def kill_readers() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                time.sleep(0.05)
                for entry in Path("/proc").iterdir():
                    if entry.name.isdigit() and int(entry.name) != os.getpid():
                        with contextlib.suppress(OSError):
                            if any(link.readlink() == pipe for link in (entry / "fd").iterdir()):
                                os.kill(int(entry.name), signal.SIGKILL)
                os.close(writer)
            time.sleep(0.05)

    thread = threading.Thread(target=kill_readers)
    thread.start()
    try:
        names = [*sorted(many.glob("[0-9].onnx")), pipe]
        report = normfold.fold_many(names, tmp_path / "out", dask=cluster.scheduler_address, verify=False)
    finally:
        stop.set()
        thread.join()
    assert report.exit == 4
    assert [run.exit for run in report.runs] == [0] * MODELS + [4]
    assert report.runs[-1].findings[0].code == "NF930"


def test_nobody_at_the_address(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normfold.batch.cluster._CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match="no scheduler answers"):
        normfold.fold_many([many], tmp_path / "out", dask="tcp://127.0.0.1:9")
