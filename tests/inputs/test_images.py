"""Folders of images as inputs: size, normalisation, layout, batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from normfold.errors import InputError, MissingDependency
from normfold.inputs import ImageOptions, parse_image_options
from normfold.inputs import images as images_module
from normfold.inputs.data import load_data
from normfold.verification import VerifyOptions, verify_models
from tests.inputs.test_inputs import specs_of
from tests.verification.conftest import ConvBatchNorm

Image = pytest.importorskip("PIL.Image")

COLOURS = [(10, 20, 30), (200, 100, 50), (0, 255, 128)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of one colour each, one of them in a folder of its own, and a text file."""
    (tmp_path / "b").mkdir()
    for path, colour in zip(("a1.png", "a2.JPG", "b/c.bmp"), COLOURS, strict=True):
        Image.new("RGB", (12, 7), colour).save(
            tmp_path / path, format=None, **({"quality": 100} if "J" in path else {})
        )
    (tmp_path / "labels.txt").write_text("")
    return tmp_path


def test_pixels_are_scaled_normalised_and_laid_out(folder: Path) -> None:
    options = parse_image_options("mean=0.485/0.456/0.406,std=0.229/0.224/0.225")
    runs = list(load_data(folder, specs_of("float[1, 3, 4, 6] x"), options))
    assert len(runs) == 3 and runs[0]["x"].dtype == np.float32
    expected = (np.array(COLOURS[0]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
        runs[0]["x"], np.broadcast_to(expected[:, None, None], (1, 3, 4, 6)), rtol=1e-6
    )


def test_channels_last_is_seen_from_the_shape(folder: Path) -> None:
    x = next(load_data(folder, specs_of("float[1, 4, 6, 3] x")))["x"]
    np.testing.assert_allclose(x[0, 0, 0] * 255, COLOURS[0], rtol=1e-6)


def test_order_scale_and_size(folder: Path) -> None:
    options = ImageOptions(size=(5, 9), scale=1.0, order="bgr", layout="nhwc")
    x = next(load_data(folder, specs_of("float[1, H, W, 3] x"), options))["x"]
    assert x.shape == (1, 5, 9, 3) and x[0, 0, 0].tolist() == [30, 20, 10]


def test_one_channel_is_grey(folder: Path) -> None:
    x = next(load_data(folder, specs_of("float[1, 1, 2, 2] x")))["x"]
    np.testing.assert_allclose(x * 255, round(0.299 * 10 + 0.587 * 20 + 0.114 * 30), atol=1)


def test_integer_inputs_take_plain_pixels(folder: Path) -> None:
    x = next(load_data(folder, specs_of("uint8[1, 3, 2, 2] x"), ImageOptions(mean=(0.5,))))["x"]
    assert x.dtype == np.uint8 and x[0, :, 0, 0].tolist() == list(COLOURS[0])


def test_axes_are_resized_in_height_and_width(tmp_path: Path) -> None:
    """Left half black, right half white: the columns stay apart whatever the height."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = next(load_data(tmp_path, specs_of("float[1, 3, 4, 16] x")))["x"]
    assert (x[..., :6] == 0).all() and (x[..., 10:] == 1).all()


def test_batches(folder: Path) -> None:
    fixed = list(load_data(folder, specs_of("float[2, 3, 2, 2] x")))
    assert [run["x"].shape[0] for run in fixed] == [2]
    (dynamic,) = load_data(folder, specs_of("float[N, 3, 2, 2] x"))
    assert dynamic["x"].shape[0] == 3
    with pytest.raises(InputError, match="3 images do not fill the model's batch of 4"):
        list(load_data(folder, specs_of("float[4, 3, 2, 2] x")))


def test_one_file(folder: Path) -> None:
    (run,) = load_data(folder / "a1.png", specs_of("float[1, 3, 2, 2] x"))
    assert run["x"].shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        ("float[1, 3, H, W] x", "", "give them with --image size=224"),
        ("float[1, 3, 4, 4] x", "size=8", "--image wants 8x8, 'x' is 4x4"),
        ("float[1, 3, 4, 4] x", "mean=0.5/0.5", "2 numbers for mean, the model has 3 channels"),
        ("float[1, 7, 5, 5] x", "", "'x' has 7 channels in layout nchw"),
        ("float[1, 3] x", "", "four axes"),
        ("float[1, 3, 4, 4] x, float[1] z", "", "one numeric input"),
        ("string[1, 3, 4, 4] x", "", "one numeric input"),
    ],
)
def test_images_that_do_not_fit_are_one_line(folder: Path, inputs: str, options: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        list(load_data(folder, specs_of(inputs), parse_image_options(options)))


def test_broken_image_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        list(load_data(tmp_path, specs_of("float[1, 3, 4, 4] x")))


def test_without_pillow_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"normfold\[images\]"):
        list(load_data(folder, specs_of("float[1, 3, 4, 4] x")))


def test_options_are_read() -> None:
    assert parse_image_options("") == ImageOptions()
    assert parse_image_options("size=224x320,mean=1/2/3,std=2,scale=1,layout=nhwc,order=bgr") == ImageOptions(
        (224, 320), (1.0, 2.0, 3.0), (2.0,), 1.0, "nhwc", "bgr"
    )
    assert parse_image_options("size=224").size == (224, 224)


@pytest.mark.parametrize(
    "text",
    [
        "size",
        "size=0",
        "size=1x2x3",
        "mean=a",
        "std=0",
        "scale=-1",
        "layout=hw",
        "order=rgba",
        "x=1",
        "mean=nan",
    ],
)
def test_options_that_make_no_sense_are_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"--image '.*' is none of") as caught:
        parse_image_options(text)
    assert caught.value.code == "NF900"


def test_models_are_verified_on_images(folder: Path) -> None:
    case = ConvBatchNorm(inputs=3)
    options = VerifyOptions(data=folder, image=ImageOptions(mean=(0.5,), std=(0.25,)))
    models = case.original(), case.folded(*case.folded_constants())
    found = verify_models(*models, options)
    assert found.verdict == "pass"
    assert found.inputs == {"source": "data", "runs": 3, "shapes": {"x": [1, 3, 9, 9]}}
    wrong = case.folded(*case.folded_constants(epsilon=1e-3))
    assert verify_models(models[0], wrong, options).verdict == "fail"
