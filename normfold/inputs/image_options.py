"""How an image becomes an input, and how that is written on a command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from normfold.errors import InputError

Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes an input: ``(pixel / scale − mean) / std`` per channel, stretched to ``size``.

    Attributes:
        size: height and width; by default those that the model declares.
        mean: one number for each channel, or one for all.
        std: likewise.
        scale: what pixels are divided by; 255 brings them to 0…1. Integer inputs always take plain pixels.
        layout: order of the axes; by default it follows from where the model has 1, 3 or 4 channels.
        order: ``bgr`` swaps the first and the third channel, after which ``mean`` and ``std`` apply.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    layout: Layout | None = None
    order: Literal["rgb", "bgr"] = "rgb"


def parse_image_options(text: str) -> ImageOptions:
    """Reads ``size=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,layout=nchw``; every part is optional.

    Raises:
        InputError: NF900, a part is unknown or has no such value.
    """
    found: dict[str, object] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        try:
            if key == "size":
                sizes = [int(number) for number in value.split("x")]
                found[key] = (sizes[0], sizes[-1])
                valid = len(sizes) <= 2 and min(sizes) > 0
            elif key in ("mean", "std"):
                numbers = found[key] = tuple(float(number) for number in value.split("/"))
                valid = all(map(np.isfinite, numbers)) and (key == "mean" or min(numbers) > 0)
            elif key == "scale":
                found[key] = float(value)
                valid = 0 < float(value) < np.inf
            else:
                found[key] = value
                valid = value in {"layout": ("nchw", "nhwc"), "order": ("rgb", "bgr")}.get(key, ())
        except ValueError:
            valid = False
        if not valid:
            raise InputError(
                f"--image {part!r} is none of size=224 or 224x320, mean=0.485/0.456/0.406, std=…, scale=255, "
                "layout=nchw or nhwc, order=rgb or bgr",
                code="NF900",
            )
    return ImageOptions(**found)  # type: ignore[arg-type]
