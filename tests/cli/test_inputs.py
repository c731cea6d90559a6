"""The options that say what models run on and how closely, from the command line to the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

Run = Callable[..., Any]

OPEN = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3, H, W] x) => (float[N, 2, H, W] y)
<float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}, float[2] g = {1.5, -0.5}, float[2] b = {0.25, 1},
 float[2] m = {0.5, 2}, float[2] v = {0.75, 3}>
{ c = Conv(x, w)  n = BatchNormalization(c, g, b, m, v)  y = Relu(n) }
"""


@pytest.fixture
def pair(tmp_path: Path, run: Run) -> tuple[Path, Path]:
    """A model with open axes, and its fold."""
    (tmp_path / "open.onnx").write_bytes(parser.parse_model(OPEN).SerializeToString())
    assert run("fold", tmp_path / "open.onnx", "-o", tmp_path / "folded.onnx", "-q").code == 0
    return tmp_path / "open.onnx", tmp_path / "folded.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty folder for data."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 5, 7)).astype(np.float32)


@pytest.fixture(params=["fold", "verify"])
def call(request: pytest.FixtureRequest, run: Run, pair: tuple[Path, Path]) -> Run:
    """Calls both commands that take inputs, on the same model."""
    first = ("fold", "--check", pair[0]) if request.param == "fold" else ("verify", *pair)

    def with_options(*options: str | Path) -> Any:
        return run(*first, "--format", "json", *options)

    return with_options


def inputs_of(outcome: Any) -> dict[str, Any]:
    """What the verification ran on, once it passed."""
    verification = outcome.report["verification"]
    assert verification["verdict"] == "pass", verification["messages"]
    return dict(verification["inputs"])


class TestData:
    def test_npz(self, call: Run, data: Path) -> None:
        np.savez(data / "a.npz", x=samples(10))
        found = inputs_of(call("--data", data / "a.npz"))
        assert (found["source"], found["runs"]) == ("data", 2)
        assert found["shapes"] == {"x": [8, 3, 5, 7]}

    def test_folder(self, call: Run, data: Path) -> None:
        for number in range(3):
            np.save(data / f"{number}.npy", samples(2, number))
        assert inputs_of(call("--data", data))["runs"] == 3

    def test_onnx_test_data_sets(self, call: Run, data: Path) -> None:
        for number in range(2):
            folder = data / f"test_data_set_{number}"
            folder.mkdir()
            tensor = numpy_helper.from_array(samples(1, number), "x")
            (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
        assert inputs_of(call("--inputs", data))["runs"] == 2

    def test_images(self, call: Run, data: Path) -> None:
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        rng = np.random.default_rng(0)
        for number, size in enumerate([(20, 30), (9, 9)]):
            image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(data / f"{number}.png")
        found = inputs_of(call("--data", data, "--image", "size=6x8,mean=0.5/0.4/0.3,std=0.2"))
        assert found["shapes"] == {"x": [2, 3, 6, 8]}

    def test_decides_the_verdict(self, run: Run, pair: tuple[Path, Path], data: Path) -> None:
        """Two models that differ for large inputs only: the user's data shows it."""
        other = parser.parse_model(
            OPEN.replace(
                "y = Relu(n) }", "r = Relu(n)  t = Constant<value = float {1000}>()  y = Min(r, t) }"
            )
        )
        onnx.save(other, data / "other.onnx")
        assert run("verify", pair[0], data / "other.onnx").code == 0
        np.savez(data / "large.npz", x=1e4 * samples(2))
        assert run("verify", pair[0], data / "other.onnx", "--data", data / "large.npz").code == 1

    @pytest.mark.parametrize(
        ("name", "arrays", "words"),
        [
            ("key.npz", {"z": samples(2)}, "no array named 'x'"),
            ("shape.npz", {"x": samples(2)[:, :2]}, "has shape [2, 2, 5, 7]"),
            ("type.npz", {"x": np.full((1, 3, 5, 7), "a")}, "has type <U1"),
            ("none.npz", {"x": samples(0)}, "no sample"),
            ("object.npz", {"x": np.array([{}], dtype=object)}, "cannot be read"),
        ],
    )
    def test_that_does_not_fit(self, call: Run, data: Path, name: str, arrays: Any, words: str) -> None:
        np.savez(data / name, **arrays)
        outcome = call("--data", data / name)
        assert outcome.code == 2
        assert words in outcome.error

    @pytest.mark.parametrize("cut", [0, 5, 200, -30])
    def test_damaged_file(self, call: Run, data: Path, cut: int) -> None:
        np.savez(data / "a.npz", x=samples(2))
        content = (data / "a.npz").read_bytes()
        (data / "a.npz").write_bytes(content[:cut])
        outcome = call("--data", data / "a.npz")
        assert outcome.code == 2
        assert "a.npz: cannot be read" in outcome.error

    @pytest.mark.parametrize(
        ("argument", "words"), [("nowhere.npz", "no such file"), ("", "empty"), ("data", "holds no")]
    )
    def test_nothing_there(
        self,
        call: Run,
        data: Path,
        monkeypatch: pytest.MonkeyPatch,
        argument: str,
        words: str,
    ) -> None:
        monkeypatch.chdir(data.parent)
        outcome = call("--data", argument)
        assert outcome.code == 2
        assert words in outcome.error

    @pytest.mark.parametrize("image", ["size=0", "mean=a", "colour=red", "std=0"])
    def test_bad_image_options(self, call: Run, data: Path, image: str) -> None:
        outcome = call("--data", data, "--image", image)
        assert outcome.code == 2
        assert image in outcome.error

    def test_image_without_data(self, call: Run) -> None:
        outcome = call("--image", "size=8")
        assert outcome.code == 2
        assert "--data" in outcome.error


class TestSizes:
    def test_shape(self, call: Run) -> None:
        assert {"x": [3, 3, 9, 11]} in [
            run["shapes"] for run in inputs_of(call("--shape", "x=3,3,9,11"))["runs"]
        ]

    def test_dims(self, call: Run) -> None:
        runs = inputs_of(call("--dim", "N=5", "--dim", "H=9", "--dim", "W=6"))["runs"]
        assert [run["shapes"] for run in runs] == [{"x": [5, 3, 9, 6]}]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--shape", "x=1,3,8"), "3 axes"),
            (("--shape", "x=1,4,8,8"), "wants 4 on axis 1"),
            (("--shape", "z=1,3,8,8"), "'z'"),
            (("--shape", "x"), "not of the form"),
            (("--shape", "x=1,3,8,-8"), "not of the form"),
            (("--shape", "x=0,3,8,8"), "not of the form"),
            (("--shape", "x=1,3,8,8", "--shape", "x=1,3,9,9"), "twice"),
            (("--dim", "Q=3"), "no axis named 'Q', there are H, N, W"),
            (("--dim", "N"), "not of the form"),
            (("--dim", "N=0"), "not of the form"),
            (("--dim", "N=-1"), "not of the form"),
            (("--dim", "N=1", "--dim", "N=2"), "twice"),
            (("--dim", "H=100000000", "--dim", "W=100000000"), "more than 268435456 elements"),
            (("--shape", f"x=1,3,8,{10**23}"), "more than 268435456 elements"),
            (("--dim", f"N={10**23}"), "more than 268435456 elements"),
        ],
    )
    def test_that_cannot_be(self, call: Run, options: tuple[str, ...], words: str) -> None:
        outcome = call(*options)
        assert outcome.code == 2
        assert words in outcome.error


class TestTolerances:
    def test_loose_ones_change_nothing(self, call: Run) -> None:
        inputs_of(call("--rtol", "1e-3", "--atol", "1e-3"))

    @pytest.mark.parametrize(
        "options", [("--rtol", "0"), ("--atol", "1e-12"), ("--rtol", "0", "--atol", "0")]
    )
    def test_tighter_than_rounding(self, call: Run, options: tuple[str, ...]) -> None:
        outcome = call(*options)
        assert outcome.code == 1
        assert any("NF214" in message for message in outcome.report["verification"]["messages"])

    @pytest.mark.parametrize("name", ["--rtol", "--atol"])
    @pytest.mark.parametrize("value", ["-1", "nan", "inf", "x"])
    def test_that_are_none(self, call: Run, name: str, value: str) -> None:
        outcome = call(name, value)
        assert outcome.code == 2
        assert name in outcome.error


class TestProviders:
    def test_options_are_in_the_report(self, call: Run) -> None:
        outcome = call("--ep", "cpu", "--ep-option", "cpu.arena=a=b")
        ran = outcome.report["verification"]["providers"]
        assert ran and all(row["options"] == {"arena": "a=b"} for row in ran)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--ep-option", "cuda.prefer_nhwc=1"), "options of cuda, which is not to run"),
            (("--ep", "cpu", "--ep-option", "prefer_nhwc=1"), "not of the form cuda.prefer_nhwc=1"),
            (("--ep", "cpu", "--ep-option", "cpu.prefer_nhwc"), "not of the form"),
            (("--ep", "cpu", "--ep-option", ".a=1"), "not of the form"),
            (("--ep", "cpu", "--ep-option", "cpu.a=1", "--ep-option", "cpu.a=2"), "twice"),
            (("--ep", "cuda", "--ep-option", "cuda.use_tf32=1"), "use_tf32 is off"),
            (("--ep", "cpu", "--ep-option", "gpu.a=1"), "no execution provider is named 'gpu'"),
        ],
    )
    def test_that_cannot_be(self, call: Run, options: tuple[str, ...], words: str) -> None:
        outcome = call(*options)
        assert outcome.code == 2
        assert words in outcome.error


@pytest.mark.parametrize("seed", ["-1", "x"])
def test_bad_seed(call: Run, seed: str) -> None:
    outcome = call("--seed", seed)
    assert outcome.code == 2
    assert "--seed" in outcome.error
