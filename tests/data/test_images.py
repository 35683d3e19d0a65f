import io
import os

import numpy as np
import pytest
from PIL import Image, ImageCms

from minicnn.data import images
from minicnn.data.dataset import ImageError
from tests.helpers.trees import picture


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(height=300, width=400) -> Image.Image:
    return Image.fromarray(picture(3, height, width))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
def test_formats_are_detected_from_the_content(format, tmp_path):
    """All formats, under the name of another."""
    (tmp_path / "photo.JPEG").write_bytes(encoded(photo(64, 64), format))
    pixels = images.load(str(tmp_path / "photo.JPEG"), 64)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    if format in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(pixels, np.asarray(photo(64, 64)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_mode_becomes_rgb(mode):
    format = "TIFF" if mode in ("CMYK", "YCbCr", "I") else "PNG"
    if mode in ("I;16", "I"):
        ramp = np.arange(32 * 32).reshape(32, 32) * 64
        image, wanted = Image.fromarray(ramp.astype(np.uint16 if mode == "I;16" else np.int32)), ramp >> 8
    else:
        image = photo(32, 32).convert(mode)
        wanted = np.asarray(image.convert("RGB"))[:, :, 0]
    assert image.mode == mode
    options = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}       # Pillow 12 cannot read its own without it
    pixels = images.decode(encoded(image, format, **options), 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[:, :, 0].astype(int), wanted, atol=1)


def test_short_side_and_central_square():
    """A wide image with marked thirds keeps the middle one; a tall one likewise; enlarging works too."""
    wide = np.zeros((90, 270, 3), np.uint8)
    wide[:, 90:180] = 200
    for array in (wide, wide.transpose(1, 0, 2)):
        pixels = images.decode(encoded(Image.fromarray(array), "PNG"), 90)
        np.testing.assert_array_equal(pixels, np.full((90, 90, 3), 200))
    assert images.decode(encoded(photo(3, 1), "PNG"), 16).shape == (16, 16, 3)


def test_one_resampling_equals_resize_then_crop():
    image = photo(300, 512)
    two_steps = np.asarray(image.resize((512 * 150 // 300, 150), Image.Resampling.BICUBIC).crop((53, 0, 203, 150)))
    np.testing.assert_allclose(images.decode(encoded(image, "PNG"), 150).astype(int), two_steps, atol=1)


def test_rotated_photograph_is_put_upright():
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = 6                      # the camera was held a quarter turn to the left
    upright = photo(64, 64)
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    np.testing.assert_array_equal(images.decode(data, 64), np.asarray(upright))


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("decoder", ["simplejpeg", None])
def test_rotated_jpeg_is_put_upright_whoever_decodes_it(decoder, turn, monkeypatch):
    """The short way to the pixels of plain JPEGs is not for those whose metadata say how they lie."""
    if decoder is None:
        monkeypatch.setattr(images, "simplejpeg", None)
    elif images.simplejpeg is None:
        pytest.skip("simplejpeg is not installed (extra `jpeg`)")
    exif, upright = Image.Exif(), photo(64, 64)
    exif[images.EXIF_ORIENTATION] = turn
    back = {6: 8, 8: 6}.get(turn, turn)                    # every other turn is its own inverse
    data = encoded(upright.transpose(images.UPRIGHT[back]), "JPEG", exif=exif, quality=95, subsampling=0)
    assert np.abs(images.decode(data, 64).astype(int) - np.asarray(upright)).mean() < 4


def test_very_large_jpeg_is_decoded_smaller():
    sizes = ((500, 375), (1023, 4000), (1024, 1024), (4000, 6000))
    assert [images._reduction(width, height, 256) for width, height in sizes] == [1, 1, 2, 4]
    image = photo(1100, 1300).resize((1300, 1100), Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG", quality=95)
    square = Image.open(io.BytesIO(data)).crop((100, 0, 1200, 1100)).resize((256, 256), Image.Resampling.BICUBIC)
    assert np.abs(images.decode(data, 256).astype(int) - np.asarray(square)).mean() < 1.5


@pytest.mark.parametrize("damage, reason", [
    (lambda data: b"", "empty"),
    (lambda data: b"no image at all", "not an image"),
    (lambda data: data[:len(data) // 2], "truncated"),
])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_damaged_file_says_which_and_why(format, damage, reason, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(damage(encoded(photo(), format)))
    with pytest.raises(ImageError, match="broken.jpg") as caught:
        images.load(str(path))
    assert reason in caught.value.reason and "\n" not in str(caught.value)
    assert caught.value.path == str(path)


def test_any_bytes_give_an_image_or_an_image_error():
    """Random damage to real files never escapes as another kind of error."""
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = np.frombuffer(encoded(photo(40, 40), format), np.uint8)
        for _ in range(40):
            data = whole.copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            try:
                assert images.decode(data.tobytes(), 16).shape == (16, 16, 3)
            except ImageError:
                pass


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        images.load(str(tmp_path / "gone.jpg"))


def test_what_counts_as_an_image_file(tmp_path):
    for name, content, wanted in [("a.JPEG", b"", True), ("b", encoded(photo(8, 8), "WEBP"), True),
                                  ("labels.txt", b"cat,1", False), ("c.dat", encoded(photo(8, 8), "PNG"), True)]:
        (tmp_path / name).write_bytes(content)
        assert images.is_image_file(str(tmp_path / name)) is wanted, name


@pytest.mark.skipif(images.simplejpeg is None, reason="simplejpeg is not installed (extra `jpeg`)")
@pytest.mark.parametrize("mode, size, options", [("RGB", (700, 500), {}), ("L", (300, 280), {}),
                                                 ("RGB", (2101, 1333), {"progressive": True}), ("CMYK", (300, 300), {}),
                                                 ("RGB", (333, 300), {"subsampling": 0})])
def test_both_jpeg_decoders_give_the_same_bits(mode, size, options, monkeypatch):
    data = encoded(photo(size[1], size[0]).convert(mode), "JPEG", **options)
    ours = images.decode(data)
    monkeypatch.setattr(images, "simplejpeg", None)
    np.testing.assert_array_equal(ours, images.decode(data))


def test_colour_profile_is_ignored():
    """Pixels are taken as stored; a profile neither fails nor changes them."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = encoded(photo(64, 64), "PNG"), encoded(photo(64, 64), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(images.decode(plain, 64), images.decode(tagged, 64))


def test_path_with_odd_characters(tmp_path):
    path = tmp_path / "사진 №1.png"
    photo(16, 16).save(path)
    assert images.load_under(str(tmp_path), 16, os.path.basename(path)).shape == (16, 16, 3)


@pytest.mark.skipif(images.simplejpeg is None, reason="simplejpeg is not installed (extra `jpeg`)")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"comment": b"a comment"},
                                     {"restart_marker_rows": 1}, {"mode": "L"}], ids=str)
def test_plain_jpegs_need_no_pillow(monkeypatch, options):
    """JFIF's header, tables, restarts, comments. With EXIF data Pillow opens them, and says how they are turned."""
    options = dict(options)
    image, turned, opened = photo(40, 56).convert(options.pop("mode", "RGB")), Image.Exif(), []
    turned[images.EXIF_ORIENTATION] = 6
    monkeypatch.setattr(images, "_open", lambda data, real=images._open: opened.append(1) or real(data))
    for exif, wanted in ((b"", 0), (turned.tobytes(), 1)):
        opened.clear()
        images.decode(encoded(image, "JPEG", exif=exif, **options), 32)
        assert len(opened) == wanted
