"""What a terminal shows while work goes on."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from normfold.batch.many import fold_many
from normfold.loading.load import file_sha256
from normfold.progress import listening


def seen(descriptor: int) -> str:
    """Everything that a terminal was sent, to its end."""
    received = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            return received.decode()
        if not part:
            return received.decode()
        received += part


@pytest.mark.parametrize("terminal", [True, False])
def test_a_batch_on_a_terminal(tools: Any, models: Path, pipe: Path, tmp_path: Path, terminal: bool) -> None:
    """Standard error is a terminal, standard output is not, and gets the lines all the same."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "normfold", "fold", str(models), str(pipe), "-o", str(tmp_path / "out")]
    with (tmp_path / "stdout").open("wb") as stdout, (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--no-verify"],
            stdout=stdout,
            stderr=follower if terminal else stderr,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        )
    os.close(follower)
    # It waits for the pipe when three models of four are done: long enough for the bar to show.
    tools.until(lambda: (tmp_path / "out" / "sub" / "b.onnx").exists())
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.5)
    pipe.write_bytes(tools.content(8))
    assert process.wait(60) == 0
    shown = seen(leader)
    os.close(leader)
    lines = (tmp_path / "stdout").read_text().splitlines()
    assert lines[-1] == "4 models: 4 folded · 0 unchanged · 0 failed"
    assert len(lines) == 5
    if terminal:
        assert "3/4 models" in shown
        assert re.search(r"models/s · \d+:\d\d left", shown)
    else:
        assert shown == ""
        assert (tmp_path / "stderr").read_text() == ""


def test_bytes_of_a_large_file(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    class Listener:
        def __call__(self, phase: str) -> None:
            """Is of no interest here."""

        def amount(self, done: int, total: int) -> None:
            heard.append((done, total))

    size = 5_000_000
    (tmp_path / "large").write_bytes(bytes(size))
    with listening(Listener()):
        file_sha256(tmp_path / "large")
    assert len(heard) >= 4
    assert heard == sorted(heard)
    assert {total for _, total in heard} == {size}
    assert heard[-1] == (size, size)
    heard.clear()
    file_sha256(tmp_path / "large")
    assert heard == []


def test_rate_and_remaining_time() -> None:
    from normfold.cli.progress import _Bar  # type: ignore[import-not-found]

    now = [0.0]
    progress = Progress(
        TextColumn("{task.fields[measure]}"),
        BarColumn(),
        console=Console(file=io.StringIO(), force_terminal=True),
        get_time=lambda: now[0],
    )
    bar = _Bar(progress)
    bar("write")
    for step in range(6):
        now[0] = float(step)
        bar.amount(step * 100_000_000, 1_000_000_000)
    assert progress.tasks[0].fields["measure"] == "500/1000 MB · 100 MB/s · 0:05 left"
    bar("verify")
    assert progress.tasks[0].fields["measure"] == ""
    assert progress.tasks[0].total is None


def test_callers_hear_of_every_model(models: Path, tmp_path: Path) -> None:
    planned: list[int] = []
    ended: list[int] = []
    fold_many(
        [models],
        tmp_path / "out",
        verify=False,
        on_plan=planned.append,
        on_done=lambda number, outcome: ended.append(number),
    )
    assert (planned, ended) == ([3], [0, 1, 2])
