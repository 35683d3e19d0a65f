"""An image is read in one way: the same pixels, orientation, limits and depth with and without simplejpeg.

Where simplejpeg is not installed, a stand-in decodes by Pillow: like it, it knows no orientation and no limits.
"""

import io
import struct
import types

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from minicnn.data import images
from minicnn.data.dataset import ImageError
from tests.helpers.trees import picture

LIMIT = 2 * Image.MAX_IMAGE_PIXELS


def stand_in():
    """As simplejpeg, it raises ValueError for what is damaged."""
    def header(data):
        image = opened(data)
        return image.height, image.width, {"L": "Gray", "RGB": "YCbCr"}.get(image.mode, "CMYK"), ""

    def decode(data, colours, min_width, min_height):
        image = opened(data)
        image.draft(image.mode, (min_width, min_height))
        try:
            return np.atleast_3d(image)
        except OSError as error:
            raise ValueError("damaged") from error

    def opened(data):
        try:
            return JpegImageFile(io.BytesIO(data))
        except SyntaxError as error:
            raise ValueError("damaged") from error

    return types.SimpleNamespace(decode_jpeg_header=header, decode_jpeg=decode)


FAST = images.simplejpeg or stand_in()


@pytest.fixture(params=["simplejpeg", "Pillow alone"])
def decoder(request, monkeypatch):
    monkeypatch.setattr(images, "simplejpeg", FAST if request.param == "simplejpeg" else None)
    return request.param


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


PHOTO = Image.fromarray(picture(3, 64, 64))
JPEG = encoded(PHOTO, "JPEG", quality=95)


def segment(number: int, data: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(data) + 2) + data


def with_segments(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def exif(*entries, extra: bytes = b"") -> bytes:
    return (b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries))
            + b"".join(struct.pack("<HHLL", *entry) for entry in entries) + bytes(4) + extra)


def turned(orientation: int) -> tuple:
    return images.EXIF_ORIENTATION, 3, 1, orientation


PROFILE = [segment(2, b"ICC_PROFILE\0" + bytes([k, 2]) + bytes(64000)) for k in (1, 2)]
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ODD = {"minus one by zero": (10, struct.pack("<ll", -1, 0)), "not a number": (12, struct.pack("<d", float("nan"))),
       "a negative short": (8, struct.pack("<h", -5))}


@pytest.mark.parametrize("segments", [
    [segment(1, exif(turned(6)))], [*PROFILE, segment(1, exif(turned(6)))], [segment(1, XMP)],
    *([segment(1, exif(turned(6), (0x11A, kind, 1, 38), extra=value))] for kind, value in ODD.values())],
    ids=["EXIF first", "EXIF behind 128 kB", "XMP", *ODD])
def test_a_photograph_is_turned_wherever_the_file_says_so(segments, decoder):
    """And whatever else is odd about its EXIF data."""
    upright = images.decode(JPEG, 64)
    np.testing.assert_array_equal(images.decode(with_segments(*segments), 64), np.rot90(upright, -1))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(form, orientation, decoder):
    data = Image.Exif()
    data[images.EXIF_ORIENTATION] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    found = images.decode(encoded(PHOTO, form, exif=data, **options), 64).astype(int)
    p = np.asarray(PHOTO)
    wanted = [p, p[:, ::-1], p[::-1, ::-1], p[::-1], p.transpose(1, 0, 2), np.rot90(p, -1),
              p[::-1, ::-1].transpose(1, 0, 2), np.rot90(p, 1)][orientation - 1]
    assert np.abs(found - wanted).mean() < (3 if form == "JPEG" else 0.01)


def test_a_tiff_with_an_odd_number_is_turned():
    whole = encoded(PHOTO, "TIFF", tiffinfo={images.EXIF_ORIENTATION: 6, 0x11A: 7.0})
    odd = whole.replace(struct.pack("<LL", 7, 1), struct.pack("<LL", 2**32 - 1, 0))
    assert odd != whole
    np.testing.assert_array_equal(images.decode(odd, 64), np.rot90(np.asarray(PHOTO), -1))


@pytest.mark.parametrize("data", [
    JPEG, encoded(PHOTO.convert("L"), "JPEG"), encoded(PHOTO.convert("CMYK"), "JPEG"),
    with_segments(segment(1, exif(turned(8)))), with_segments(segment(2, b"MPF\0II*\0\1"))],
    ids=["colour", "grey", "CMYK", "turned", "a damaged index of an MPO"])
def test_the_same_pixels_format_and_mode(data, monkeypatch):
    found = []
    for module in (FAST, None):
        monkeypatch.setattr(images, "simplejpeg", module)
        found.append(images.examine(data, 48))
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)
    assert found[0][1:] == found[1][1:] and found[0].format == "JPEG"


def saying(width: int, height: int) -> bytes:
    """A progressive JPEG of 16 x 16, whose header says otherwise."""
    data = encoded(PHOTO.resize((16, 16)), "JPEG", progressive=True, quality=30)
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4:]


@pytest.mark.parametrize("width, height, reason", [
    (65500, 65500, f"65500 x 65500 pixels are more than the {LIMIT:,} that are decoded"),
    (13000, 13000, "truncated: .* bytes cannot hold 13000 x 13000 pixels")])
def test_the_limit_is_asked_before_decoding(width, height, reason, decoder, monkeypatch):
    decodings = []
    for owner, name in ((JpegImageFile, "load"), (FAST, "decode_jpeg")):
        monkeypatch.setattr(owner, name, lambda *_, **__: decodings.append(1))
    with pytest.raises(ImageError, match=reason):
        images.decode(saying(width, height), 64)
    assert not decodings


@pytest.mark.filterwarnings("ignore")              # as images.py does, before pytest makes errors of them
def test_between_the_warning_and_the_limit(decoder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    np.testing.assert_array_equal(images.decode(encoded(PHOTO, "PNG"), 64), np.asarray(PHOTO))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    with pytest.raises(ImageError, match="64 x 64 pixels are more than the 4,094 that"):
        images.decode(JPEG, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert images.decode(JPEG, 64).shape == (64, 64, 3)


# ---- depth
RAMP = np.arange(64 * 64).reshape(64, 64).astype(np.uint16)             # 0 to 4095


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in values.ravel())
    raw = int(bits, 2).to_bytes(len(bits) // 8, "big")
    height, width = values.shape
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, len(raw))]
    return (b"II*\0" + struct.pack("<L", 8 + len(raw)) + raw + struct.pack("<H", len(entries))
            + b"".join(struct.pack("<HHLL", *entry) for entry in entries) + bytes(4))


@pytest.mark.parametrize("data", [tiff_of_12_bits(RAMP), encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={281: 4095})],
                         ids=["12 bits per sample", "16 bits, of which the largest is 4095"])
def test_the_declared_depth_is_used(data):
    np.testing.assert_array_equal(images.decode(data, 64)[:, :, 1], RAMP >> 4)


def png_of_16_bit_colours(values: np.ndarray) -> bytes:
    """Pillow cannot write one."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("highest", [255, 4095])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "32-bit TIFF", "PPM", "colours"])
def test_few_bits_in_16_are_refused_by_name(form, highest):
    """12 bits in 16 would become 16 grey levels, near black; 8 would become all black."""
    values = RAMP * highest // 4095
    if form == "colours":
        data = png_of_16_bit_colours(np.repeat(values[:, :, None], 3, axis=2))
    else:
        kind = np.int32 if form == "32-bit TIFF" else np.uint16
        data = encoded(Image.fromarray(values.astype(kind)), form.split()[-1])
    with pytest.raises(ImageError, match="scan.x: 16 bits a pixel, and every value is below .* would be nearly black"):
        images.decode(data, 64, "scan.x")


def test_all_of_16_bits():
    np.testing.assert_array_equal(images.decode(encoded(Image.fromarray(RAMP * 16), "PNG"), 64)[:, :, 0], RAMP >> 4)
    colours = np.stack([RAMP * 16, RAMP, RAMP], axis=2)
    np.testing.assert_array_equal(images.decode(png_of_16_bit_colours(colours), 64)[:, :, 0], RAMP >> 4)
    assert not images.decode(encoded(Image.fromarray(RAMP * 0), "PNG"), 64).any()           # black, of any depth


def test_32_bits_have_no_fixed_range():
    for values in (RAMP.astype(np.int32) << 16, -RAMP.astype(np.int32)):
        with pytest.raises(ImageError, match="have no fixed range; expected 0 to 65535"):
            images.decode(encoded(Image.fromarray(values), "TIFF"), 64)


def test_what_minicnn_has_drawn_is_no_image():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "minicnn")
    with pytest.raises(ImageError, match="a picture that minicnn has drawn, not data"):
        images.decode(encoded(PHOTO, "PNG", pnginfo=notes), 64)


@pytest.mark.skipif(FAST is not images.simplejpeg, reason="simplejpeg is not installed (extra `jpeg`)")
def test_damaged_jpegs_are_the_same_for_both_decoders(monkeypatch):
    """Refused by both, or the same pixels by both: 300 mutants with a few bits flipped, half of them in the header."""
    rng = np.random.default_rng(0)
    whole = [np.frombuffer(encoded(PHOTO.convert(mode), "JPEG", **options), np.uint8)
             for mode in ("RGB", "L") for options in ({}, {"progressive": True}, {"subsampling": 0})]
    ends = {}
    for number in range(300):
        data = whole[number % 6].copy()
        at = rng.integers(0, len(data) if number % 2 else 400, rng.integers(1, 4))
        data[at] ^= 1 << rng.integers(0, 8, len(at)).astype(np.uint8)
        for module in (FAST, None):
            monkeypatch.setattr(images, "simplejpeg", module)
            try:
                ends[module is None] = images.decode(data.tobytes(), 16)
            except ImageError:
                ends[module is None] = "refused"
        np.testing.assert_array_equal(ends[True], ends[False])
