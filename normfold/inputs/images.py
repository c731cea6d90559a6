"""Folders of images as inputs: resized, normalised, in the model's layout. Needs Pillow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from normfold.errors import InputError, MissingDependency
from normfold.inputs.drawing import Arrays, InputSpec
from normfold.inputs.image_options import ImageOptions, Layout

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a number of channels."""


def image_files(path: Path) -> list[Path]:
    """The images in a folder and the folders below it, or the one image that ``path`` is."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]


def load_images(
    files: Sequence[Path], specs: Sequence[InputSpec], options: ImageOptions, batch: int
) -> Iterator[Arrays]:
    """Yields batches of images for the model's one input.

    Args:
        files: image files.
        specs: the model's inputs.
        options: size, normalisation and layout.
        batch: images in one run where the model leaves that open.

    Raises:
        InputError: a file is no image, or images do not fit the input.
        MissingDependency: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingDependency("reading images needs Pillow: pip install 'normfold[images]'")
    if len(specs) != 1 or len(specs[0].shape) != 4 or specs[0].dtype.kind in "bOUST":
        raise InputError(
            "a folder of images fits a model with one numeric input of four axes; give an .npz for others"
        )
    spec = specs[0]
    layout, channels, size = _geometry(spec, options)
    for name, numbers in (("mean", options.mean), ("std", options.std)):
        if len(numbers) not in (1, channels):
            raise InputError(
                f"--image gives {len(numbers)} numbers for {name}, the model has {channels} channels"
            )
    step = spec.shape[0] if isinstance(spec.shape[0], int) else batch
    if isinstance(spec.shape[0], int) and len(files) < step:
        raise InputError(f"{len(files)} images do not fill the model's batch of {step}")
    last = len(files) - len(files) % step if isinstance(spec.shape[0], int) else len(files)
    for start in range(0, last, step):
        pixels = np.stack([_pixels(file, channels, size) for file in files[start : min(start + step, last)]])
        yield {spec.name: _arranged(pixels, spec, options, layout)}


def _geometry(spec: InputSpec, options: ImageOptions) -> tuple[Layout, int, tuple[int, int]]:
    """Layout, number of channels, height and width."""
    _, *rest = spec.shape
    layout = options.layout
    if layout is None:
        last = rest[0] != 3 and (rest[2] == 3 or (rest[0] not in MODES and rest[2] in MODES))
        layout = "nhwc" if last else "nchw"
    channels, sizes = (rest[0], rest[1:]) if layout == "nchw" else (rest[2], rest[:2])
    if not isinstance(channels, int):
        channels = 3
    if channels not in MODES:
        raise InputError(f"'{spec.name}' has {channels} channels in layout {layout}; images have 1, 3 or 4")
    wanted = options.size or sizes
    if not all(isinstance(size, int) for size in wanted):
        raise InputError(f"the height and width of '{spec.name}' are open: give them with --image size=224")
    for have, want in zip(sizes, wanted, strict=True):
        if isinstance(have, int) and have != want:
            raise InputError(
                f"--image wants {wanted[0]}x{wanted[1]}, '{spec.name}' is {sizes[0]}x{sizes[1]} in layout "
                f"{layout}"
            )
    return layout, channels, (int(wanted[0]), int(wanted[1]))


def _pixels(file: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """One image as ``[height, width, channels]``, 8 bits."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            resized = image.convert(MODES[channels]).resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(resized).reshape(*size, channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file.name}: not a readable image: {' '.join(str(error).split())}") from error


def _arranged(pixels: np.ndarray, spec: InputSpec, options: ImageOptions, layout: Layout) -> np.ndarray:
    if options.order == "bgr" and pixels.shape[-1] >= 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]]
    if spec.floating:
        pixels = (pixels / options.scale - np.array(options.mean)) / np.array(options.std)
    if layout == "nchw":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels).astype(spec.dtype)
