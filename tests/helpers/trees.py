"""Small class-folder trees of real image files, made where a test needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from minicnn.data.dataset import Dataset


def picture(number: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth coloured image that is different for each number; uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(7 * number + 3 * x) % 256, (60 * number + 2 * y) % 256, (11 * number + x + y) % 256],
                    axis=-1).astype(np.uint8)


def tree(root: Path, counts: dict[str, int], extension: str = ".png", first: int = 0) -> Path:
    """root/<class>/<number><extension> for every class and count."""
    number = first
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            Image.fromarray(picture(number)).save(root / folder / f"{number:03d}{extension}")
            number += 1
    return root


def in_memory(count: int, size: int = 6, classes: int = 3, bad=(), calls: list | None = None) -> Dataset:
    """A dataset without files: image i is filled with i; the items in `bad` cannot be read."""
    from minicnn.data.dataset import ImageError

    def decode(item):
        if calls is not None:
            calls.append(item)
        if item in bad:
            raise ImageError(f"picture {item}", "torn")
        return np.full((size, size, 3), item % 256, np.uint8)

    return Dataset("album", [f"class {k}" for k in range(classes)], np.arange(count) % classes, range(count), decode,
                   size=(size, size))
