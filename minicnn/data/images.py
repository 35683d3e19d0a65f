"""From a file's bytes to uint8 (size, size, 3): the AlexNet paper's preprocessing (section 2), except for the mean.

"We first rescaled the image such that the shorter side was of length 256, and then cropped out the central 256x256
patch." Here both are one resampling of the central square, with Pillow's antialiased bicubic filter, which also reads
the pixels beyond the square's edge. Recipes that vary scale and aspect want the whole image: resize="aspect" gives
uint8 (A, B, 3), whose short side is `size`. Very large JPEGs are first decoded at 1/2, 1/4 or 1/8, as long as that
leaves at least twice the pixels needed.

The format is detected from the content, not from the name (ImageNet has a PNG called .JPEG). Pillow reads the headers:
size, mode and orientation; only those of plain JPEGs, which have no orientation, are read here, in a tenth of the time.
The pixels of a JPEG are decoded by simplejpeg where it is installed, with the same bits as by Pillow, which decodes all
else. So which images can be used, and what they become, does not depend on simplejpeg. Grey becomes three equal
channels, palettes and CMYK become RGB, alpha is dropped, 16 bits become 8, and a photograph is rotated as its EXIF
orientation says. An image that Pillow holds to be a decompression bomb is refused before decoding.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from minicnn.data.dataset import ASPECT, ImageError
from minicnn.data.stage_times import stage

try:
    import simplejpeg
except ImportError:                                # the extra `jpeg`
    simplejpeg = None

Image.init()                                       # now: two threads that first see a rare format would race for it
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd EXIF data, say: no reason to leave it out under -W error

EXTENSIONS = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .dib .webp .gif .tif .tiff .ppm .pgm .pnm .avif .jp2".split())
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
# Of JPEGs: the segments of one that has no metadata, those of them with its size, and the begin of its pixels.
PLAIN_SEGMENTS = frozenset(bytes([0xFF, kind]) for kind in (0xE0, 0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xDD, 0xFE))
FRAMES, START_OF_SCAN, FRAME = frozenset((b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")), b"\xff\xda", struct.Struct(">HHB")
EXIF_ORIENTATION = 0x0112
UPRIGHT = dict(zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))   # of an orientation
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281       # tags of TIFF
DARK = 1 << 12                                     # 16-bit pixels that are all below this are of fewer bits
MOST_PIXELS_PER_BYTE = 2000                        # of a JPEG: a block of 8 x 8 takes at least one bit
RESIZES = ("short", "squash", ASPECT)              # short side to size and central square; both sides; short side alone
MOST_ASPECT = 20                                   # long side / short side of an image that keeps its aspect
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
    """The image in this file, uint8 (size, size, 3), or (A, B, 3) with resize="aspect". Raises ImageError.

    See RESIZES and INTERPOLATIONS.
    """
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
    """The image in these bytes, as by `load`. `where` names it in an ImageError."""
    with stage("decode"):
        return examine(data, size, where, resize=resize, interpolation=interpolation).pixels


class Picture(NamedTuple):
    """A decoded image, and what its file was: a format such as "JPEG", a mode such as "RGB", "L" (grey) or "CMYK"."""

    pixels: np.ndarray         # uint8 (size, size, 3), or (A, B, 3)
    format: str
    mode: str


def examine(data: bytes, size: int = 256, where: str = "in memory", *, resize: str = "short",
            interpolation: str = "bicubic") -> Picture:
    """As decode, with the file's format and mode."""
    if not data:
        raise ImageError(where, "the file is empty")
    try:
        image, form, mode = _plain_jpeg(data, size) or _any_image(data, size)
        return Picture(_resized(image, size, resize, interpolation), form, mode)
    except MemoryError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(where, "not an image in a known format") from error
    except Exception as error:                     # damaged files give OSError, SyntaxError, struct.error ...
        raise ImageError(where, str(error) or type(error).__name__) from error


def _plain_jpeg(data: bytes, size: int) -> tuple[Image.Image, str, str] | None:
    """A JPEG without metadata, decoded by simplejpeg, its format and mode; None for all else."""
    if simplejpeg is None or not data.startswith(SIGNATURES[0]):
        return None
    at, width, colours = 2, 0, 0
    while (kind := data[at:at + 2]) in PLAIN_SEGMENTS:
        if kind in FRAMES and at + 10 <= len(data):
            height, width, colours = FRAME.unpack_from(data, at + 5)
        at += 2 + int.from_bytes(data[at + 2:at + 4], "big")
    if kind != START_OF_SCAN or colours not in (1, 3):
        return None
    _check_pixels(width, height, "JPEG", len(data))
    mode = "L" if colours == 1 else "RGB"
    image = _fast_jpeg(data, mode, width, height, _reduction(width, height, size))
    return image and (image, "JPEG", mode)


def _any_image(data: bytes, size: int) -> tuple[Image.Image, str, str]:
    """An image, upright and in mode L or RGB; its format, and the mode it is stored in."""
    image = _open(data)
    _check_pixels(*image.size, image.format, len(data))
    if image.info.get("Software") == "minicnn":
        raise ValueError("a picture that minicnn has drawn, not data")
    form, mode = image.format, image.mode
    return _decoded(image, data, size), form, mode


def _open(data: bytes) -> Image.Image:
    """The image as its header describes it; no pixels yet."""
    if not data.startswith(SIGNATURES[0]):
        return Image.open(io.BytesIO(data))
    try:
        return JpegImageFile(io.BytesIO(data))     # Image.open would look for the further images of a camera's MPO
    except SyntaxError as error:
        raise Image.UnidentifiedImageError("a damaged header") from error


def _check_pixels(width: int, height: int, form: str, size: int) -> None:
    """ValueError for an image that is not worth decoding.   size: of the file, in bytes."""
    most = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else width * height
    if width * height > most:
        raise ValueError(f"{width} x {height} pixels are more than the {most:,} that are decoded")
    if form == "JPEG" and width * height > MOST_PIXELS_PER_BYTE * size:
        raise ValueError(f"truncated: {size:,} bytes cannot hold {width} x {height} pixels")


def _reduction(width: int, height: int, size: int) -> int:
    """The largest of 1, 2, 4, 8 by which a JPEG may be decoded smaller with twice the needed pixels left."""
    short = min(width, height)
    return next(k for k in (8, 4, 2, 1) if k == 1 or short // k >= 2 * size)


def _decoded(image: Image.Image, data: bytes, size: int) -> Image.Image:
    """Its pixels, upright, in mode L or RGB."""
    if image.format == "JPEG":
        turn = _orientation(image) if image.info.keys() & {"exif", "xmp"} else 1
        k, fast = _reduction(*image.size, size), None
        if simplejpeg is not None and image.mode in ("L", "RGB"):
            fast = _fast_jpeg(data, image.mode, *image.size, k)
        if fast is None and k > 1:
            image.draft(image.mode, (image.width // k, image.height // k))
        pixels = _grey_or_rgb(image) if fast is None else fast
    else:
        pixels = _grey_or_rgb(image)
        turn = _orientation(image)                 # not earlier: Pillow itself turns a TIFF when it is loaded
    return pixels.transpose(UPRIGHT[turn]) if turn != 1 else pixels


def _fast_jpeg(data: bytes, mode: str, width: int, height: int, k: int) -> Image.Image | None:
    """A JPEG decoded by simplejpeg at 1/k of its size; None where it cannot, and Pillow tries next."""
    try:
        if simplejpeg.decode_jpeg_header(data)[2] != ("Gray" if mode == "L" else "YCbCr"):
            return None
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if mode == "L" else "RGB",
                                        min_width=-(-width // k), min_height=-(-height // k))
    except ValueError:                             # damaged or unusual
        return None
    return Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image, decoded, in mode L or RGB."""
    deep = image.format != "JPEG" and any(";16" in str(tile[3]) for tile in image.tile)
    image.load()
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):                 # convert() would clip it at 255
        return Image.fromarray(_of_8_bits(np.asarray(image), _declared_bits(image)))
    if deep and np.max(np.atleast_3d(image)[:, :, :3]) < DARK >> 8:
        raise ValueError(_too_dark(DARK))          # Pillow keeps the upper 8 bits of each colour
    if image.mode == "P":                          # a palette may hold transparency, which only RGBA can
        image = image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _of_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Grey values of `bits` bits, uint8. ValueError where they are not of the range that this is."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << 16:
        raise ValueError(f"pixels of {low} to {high} have no fixed range; expected 0 to 65535")
    if bits == 16 and 0 < high < DARK:
        raise ValueError(_too_dark(high + 1))
    return (values >> max(bits, high.bit_length(), 8) - 8).astype(np.uint8)


def _too_dark(end: int) -> str:
    return (f"16 bits a pixel, and every value is below {end:,}: pixels of {(end - 1).bit_length()} bits or fewer, "
            "which would be nearly black; expected the whole range of 16 bits, or 8 bits")


def _declared_bits(image: Image.Image) -> int:
    """The bits of a grey pixel by its file: 16, unless a TIFF says otherwise."""
    tags = getattr(image, "tag_v2", {})
    bits, highest = tags.get(BITS_PER_SAMPLE), tags.get(MAX_SAMPLE_VALUE)
    if isinstance(highest, tuple):
        highest = highest[0] if highest else None
    if isinstance(highest, int) and 0 < highest < 1 << 16:
        return highest.bit_length()
    return bits[0] if isinstance(bits, tuple) and bits and bits[0] in range(9, 16) else 16


def _orientation(image: Image.Image) -> int:
    """The orientation in its EXIF or XMP data, 1 to 8; 1 is upright."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:                              # damaged EXIF data are no reason to lose the image
        return 1


def _resized(image: Image.Image, size: int, resize: str, interpolation: str) -> np.ndarray:
    """The central square of an image, or all of it, as (size, size, 3); or all of it as (A, B, 3)."""
    width, height = image.size
    side, target, box = min(width, height), (size, size), (0, 0, width, height)
    if resize == ASPECT:
        if max(width, height) > MOST_ASPECT * side:
            raise ValueError(f"{width} x {height} pixels: one side is more than {MOST_ASPECT} times the other, too "
                             "long a strip to be kept whole")
        target = round(size * width / side), round(size * height / side)
    elif resize == "short":
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    if (width, height) != target:
        image = image.resize(target, INTERPOLATIONS[interpolation], box=box)
    pixels = np.asarray(image)                                               # (A, B) or (A, B, 3)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)                    # (A, B) -> (A, B, 3)
    return np.ascontiguousarray(pixels)


def central_square(image: np.ndarray) -> np.ndarray:
    """The central square (S, S, 3) of an image (A, B, 3), a view."""
    A, B, _ = image.shape
    side = min(A, B)
    top, left = (A - side) // 2, (B - side) // 2
    return image[top:top + side, left:left + side]
