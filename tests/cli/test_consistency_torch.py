"""``normfold consistency --torch``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

Run = Callable[..., Any]

TRAINED = Path(__file__).parents[2] / "models" / "trained"
LENET = ("--torch", "models.lenet:LeNet")
DATA = ("--data", TRAINED / "digits_heldout.npz")


def test_trained(run: Run) -> None:
    outcome = run("consistency", *LENET, "--weights", TRAINED / "lenet_digits.pt", *DATA, "--format", "json")
    assert outcome.code == 0
    report = outcome.report
    assert {finding["severity"] for finding in report["findings"]} == {"info"}
    module = report["consistency"]["module"]
    assert [output["output"] for output in module["outputs"]]
    assert all(output["exported"] < 1e-5 and output["folded"] < 1e-10 for output in module["outputs"])
    assert len(module["buffers"]) == 8
    assert all(buffer["site"] is not None for buffer in module["buffers"])
    digest = hashlib.sha256((TRAINED / "digits_heldout.npz").read_bytes()).hexdigest()
    assert report["consistency"]["data"] == [{"path": "digits_heldout.npz", "sha256": digest}]


def test_folder_of_images(run: Run, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with np.load(TRAINED / "digits_heldout.npz") as stored:
        for index, pixels in enumerate(stored["images"][:64, 0]):
            image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / f"{index:02}.png")
    weights = ("--weights", TRAINED / "lenet_digits.pt")
    outcome = run(
        "consistency", *LENET, *weights, "--data", tmp_path, "--image", "size=8", "--format", "json"
    )
    assert outcome.code == 0
    assert outcome.report["consistency"]["images"] == 64
    outcome = run("consistency", *LENET, *weights, "--data", tmp_path)
    assert outcome.code == 2 and "--image size" in outcome.error


def test_untrained(run: Run) -> None:
    outcome = run("consistency", *LENET, *DATA, "--format", "json")
    assert outcome.code == 1
    codes = {finding["code"] for finding in outcome.report["findings"]}
    assert {"NF304", "NF340"} <= codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either a model or --torch"),
        ((*LENET,), "--data"),
        (("model.onnx", *LENET, *DATA), "either a model or --torch"),
        (("model.onnx", "--weights", "w.pt"), "--torch"),
        ((*LENET, *DATA, "--freeze-initializers"), "--freeze-initializers"),
        ((*LENET, "--data", "nowhere"), "nowhere"),
        ((*LENET, "--data", Path(__file__)), ".npz, .npy, images"),
        (("--torch", "models.nothing:LeNet", *DATA), "models.nothing"),
        (("--torch", "models.lenet", *DATA), "package.module:factory"),
    ],
)
def test_misused(run: Run, arguments: tuple[Any, ...], message: str) -> None:
    outcome = run("consistency", *arguments)
    assert outcome.code == 2
    assert message in outcome.error


def test_data_under_another_name(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", pixels=np.zeros((2, 1, 8, 8)), more=np.zeros(2))
    outcome = run("consistency", *LENET, "--data", tmp_path / "data.npz")
    assert outcome.code == 2
    assert "'images'" in outcome.error
