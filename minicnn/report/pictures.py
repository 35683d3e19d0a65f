"""Arrays as images inside an HTML file: data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from minicnn.visualize.units import Box

SMALL, LEAST = 96, 192                  # pixels: images below SMALL are enlarged to LEAST or more, pixel by pixel
FRAME = (213, 94, 0)                    # as in the other pictures: minicnn/visualize/style.py
GREY = 128
DARK_TO_BRIGHT = np.array([(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129),
                           (92, 200, 99), (170, 220, 50), (253, 231, 37)], np.float64)          # of viridis


@dataclass(frozen=True)
class Picture:
    """uri: a data URI.   width, height: in pixels.   alt: what it shows and how that was computed."""

    uri: str
    width: int
    height: int
    alt: str


def picture(pixels: np.ndarray, alt: str, box: Box | None = None, *, sharp: bool = False) -> Picture:
    """An image (h, w, 3), uint8 or 0..1; or with transparency (h, w, 4).   box: a frame.   sharp: as PNG, not JPEG."""
    pixels = as_bytes(pixels)
    side = max(pixels.shape[:2])
    scale = -(-LEAST // side) if side < SMALL else 1
    image = Image.fromarray(np.ascontiguousarray(pixels.repeat(scale, 0).repeat(scale, 1)))
    if box is not None:
        top, left, bottom, right = (scale * edge for edge in box)
        width = max(2, image.width // 112)
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=width)
    file, kind = io.BytesIO(), "png" if sharp or scale > 1 else "jpeg"
    image.save(file, kind.upper(), **({"optimize": True} if kind == "png" else {"quality": 86}))
    return Picture(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", *image.size, alt)


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8 of an image that may be 0..1."""
    return pixels if pixels.dtype == np.uint8 else np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def heat(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(P, Q) -> uint8 (P, Q, 3): `low` dark, `high` bright."""
    share = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    anchors = np.linspace(0, 1, len(DARK_TO_BRIGHT))
    return np.rint(np.stack([np.interp(share, anchors, DARK_TO_BRIGHT[:, c]) for c in range(3)], -1)).astype(np.uint8)


def over(image: np.ndarray, colours: np.ndarray, place: Box, share: float = 0.7) -> np.ndarray:
    """The image in grey, and over it, at `place` (top, left, bottom, right), uint8 colours (P, Q, 3)."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    top, left, bottom, right = place
    rows = np.arange(bottom - top) * len(colours) // (bottom - top)
    columns = np.arange(right - left) * colours.shape[1] // (right - left)
    cut = grey[top:bottom, left:right]
    found = 0.5 * grey + 96                                                     # what was never covered is pale
    found[top:bottom, left:right] = share * colours[rows][:, columns][:cut.shape[0], :cut.shape[1]] + (1 - share) * cut
    return as_bytes(found / 255)


def mosaic(images: Sequence[np.ndarray], columns: int, gap: int = 0, clear: bool = False) -> np.ndarray:
    """Images (h, w, 3) in rows, each in the middle of a square cell.   clear: transparent (…, 4) between them, not
    grey."""
    images = [as_bytes(image) for image in images]
    cell = max(max(image.shape[:2]) for image in images)
    pitch = cell + (gap := gap or max(1, cell // 32))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * pitch - gap, columns * pitch - gap, 4), GREY, np.uint8)
    sheet[..., 3] = 0
    for number, image in enumerate(images):
        top = number // columns * pitch + (cell - image.shape[0]) // 2
        left = number % columns * pitch + (cell - image.shape[1]) // 2
        sheet[top:top + image.shape[0], left:left + image.shape[1], :3] = image
        sheet[top:top + image.shape[0], left:left + image.shape[1], 3] = 255
    return sheet if clear else sheet[..., :3]
