"""Arrays as PNGs, in data URIs: a picture and its caption arrive in one answer."""

from __future__ import annotations

import base64
import io
from functools import cache

import numpy as np
from PIL import Image

from minicnn.evaluate.predict import check_finite

SIGNED, POSITIVE = "RdBu_r", "viridis"      # as in minicnn/visualize/panels.py


def png(image: np.ndarray) -> str:
    """(h, w, 3), uint8 or 0..1, as the address of a picture. CheckpointError for values that are not finite."""
    if image.dtype != np.uint8:
        check_finite(image, "the network's gradients")
        image = np.rint(255 * image).astype(np.uint8)
    return _address(Image.fromarray(np.ascontiguousarray(image)))


def sheet(maps: np.ndarray, columns: int) -> str:
    """Maps (H, W, C) side by side, `columns` in a row, each on its own scale; see scale_words."""
    height, width, count = maps.shape
    low, peak = maps.min(), np.abs(maps).max(axis=(0, 1))
    scaled = np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)                 # -1..1, or 0..1
    index = np.rint(255 * (0.5 + 0.5 * scaled if low < 0 else scaled)).astype(np.uint8)
    rows = -(-count // columns)
    page = np.zeros((rows * columns, height, width), np.uint8)
    page[:count] = index.transpose(2, 0, 1)
    page = page.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    image = Image.fromarray(page)
    image.putpalette(_colours(SIGNED if low < 0 else POSITIVE))
    return _address(image)


def scale_words(maps: np.ndarray) -> str:
    """What the colours of a sheet are."""
    if maps.min() < 0:
        return "each on its own scale: blue negative, white 0, red positive"
    return "each on its own scale: 0 dark, its largest activation bright"


@cache
def _colours(name: str) -> bytes:
    """256 colours of a map of matplotlib's, as Pillow takes a palette."""
    from matplotlib import colormaps

    return colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes()


def _address(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
