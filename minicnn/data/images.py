"""From a file's bytes to uint8 (size, size, 3): the paper's preprocessing (section 2), except for the mean.

"We first rescaled the image such that the shorter side was of length 256, and then cropped out the central 256x256
patch." Here both are one resampling of the central square, with Pillow's antialiased bicubic filter, which also reads
the pixels beyond the square's edge. Very large JPEGs are first decoded at 1/2, 1/4 or 1/8, as long as that leaves at
least twice the pixels needed.

The format is detected from the content, not from the name (ImageNet has a PNG called .JPEG). JPEGs are decoded by
simplejpeg where it is installed, with the same bits as by Pillow, which decodes all else (CMYK, damaged files, rotated
photographs). Grey becomes three equal channels, palettes and CMYK become RGB, alpha is dropped, 16 bits become 8, and a
photograph is rotated as its EXIF orientation says.
"""

from __future__ import annotations

import io
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from minicnn.data.dataset import ImageError
from minicnn.data.stage_times import stage

try:
    import simplejpeg
except ImportError:                                # the extra `jpeg`
    simplejpeg = None

Image.init()                                       # now: two threads that first see a rare format would race for it

EXTENSIONS = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .dib .webp .gif .tif .tiff .ppm .pgm .pnm .avif .jp2".split())
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
EXIF_ORIENTATION = 0x0112
RESIZES = ("short", "squash")                      # short side to size and central square; both sides to size
INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in ("bicubic", "bilinear", "lanczos", "box", "nearest")}


def is_image_file(path: str) -> bool:
    """Whether a file is an image by its extension, or, where that is not a known one, by its first bytes."""
    if os.path.splitext(path)[1].lower() in EXTENSIONS:
        return True
    try:
        with open(path, "rb") as file:
            return begins_an_image(file.read(12))
    except OSError:
        return False


def begins_an_image(head: bytes) -> bool:
    """Whether a file that begins with these (at least 12) bytes is an image of a common format."""
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def load(path: str, size: int = 256, *, resize: str = "short", interpolation: str = "bicubic") -> np.ndarray:
    """The image in this file, uint8 (size, size, 3); see RESIZES and INTERPOLATIONS. Raises ImageError."""
    try:
        with stage("disk"), open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    return decode(data, size, path, resize=resize, interpolation=interpolation)


def load_under(root: str, size: int, relative: str, *, resize: str = "short",
               interpolation: str = "bicubic") -> np.ndarray:
    """load(root/relative); the decode function of sets that list paths below a folder."""
    return load(os.path.join(root, relative), size, resize=resize, interpolation=interpolation)


def decode(data: bytes, size: int = 256, where: str = "in memory", *, resize: str = "short",
           interpolation: str = "bicubic") -> np.ndarray:
    """The image in these bytes, uint8 (size, size, 3). `where` names it in an ImageError."""
    with stage("decode"):
        return examine(data, size, where, resize=resize, interpolation=interpolation).pixels


class Picture(NamedTuple):
    """A decoded image, and what its file was: a format such as "JPEG", a mode such as "RGB", "L" (grey) or "CMYK"."""

    pixels: np.ndarray         # uint8 (size, size, 3)
    format: str
    mode: str


def examine(data: bytes, size: int = 256, where: str = "in memory", *, resize: str = "short",
            interpolation: str = "bicubic") -> Picture:
    """As decode, with the file's format and mode."""
    if not data:
        raise ImageError(where, "the file is empty")
    try:
        image = _open_jpeg(data, size) if simplejpeg is not None else None
        image, form, mode = _open(data, size) if image is None else (image, "JPEG", image.mode)
        return Picture(_square(image, size, resize, interpolation), form, mode)
    except MemoryError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(where, "not an image in a known format") from error
    except Exception as error:                     # damaged files give OSError, SyntaxError, struct.error ...
        raise ImageError(where, str(error) or type(error).__name__) from error


def _reduction(width: int, height: int, size: int) -> int:
    """The largest of 1, 2, 4, 8 by which a JPEG may be decoded smaller with twice the needed pixels left."""
    short = min(width, height)
    return next(k for k in (8, 4, 2, 1) if k == 1 or short // k >= 2 * size)


def _open_jpeg(data: bytes, size: int) -> Image.Image | None:
    """A plain JPEG, decoded by simplejpeg; None for all else, which Pillow decodes."""
    if not data.startswith(SIGNATURES[0]) or b"Exif\0\0" in data[:65536]:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("Gray", "YCbCr"):
            return None
        k = _reduction(width, height, size)
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if colours == "Gray" else "RGB",
                                        min_width=-(-width // k), min_height=-(-height // k))
    except ValueError:                             # damaged or unusual: Pillow tries next
        return None
    return Image.fromarray(pixels[:, :, 0] if colours == "Gray" else pixels)


def _open(data: bytes, size: int) -> tuple[Image.Image, str, str]:
    """Any image, decoded by Pillow, in mode L or RGB; and its format, and the mode it is stored in."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",) if data.startswith(SIGNATURES[0]) else None)
    form, mode = image.format, image.mode
    k = _reduction(*image.size, size)
    if form == "JPEG" and k > 1:
        image.draft(image.mode, (image.width // k, image.height // k))
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return _grey_or_rgb(image), form, mode


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):                 # 16-bit grey; convert() would clip it at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P":                          # a palette may hold transparency, which only RGBA can
        image = image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _orientation(image: Image.Image) -> int:
    """The orientation in its EXIF data, 1 to 8; 1 is upright."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:                              # damaged EXIF data are no reason to lose the image
        return 1
    return value if value in range(1, 9) else 1


def _square(image: Image.Image, size: int, resize: str, interpolation: str) -> np.ndarray:
    """The central square of an image, or all of it, as (size, size, 3)."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (0, 0, width, height) if resize == "squash" else (left, top, left + side, top + side)
    if (width, height) != (size, size):
        image = image.resize((size, size), INTERPOLATIONS[interpolation], box=box)
    pixels = np.asarray(image)                                               # (A, A) or (A, A, 3)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)                    # (A, A) -> (A, A, 3)
    return np.ascontiguousarray(pixels)
