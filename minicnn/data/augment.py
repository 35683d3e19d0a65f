"""Crops, flips and colour shifts of training images, as numbers.

A draw is a pure function of (seed, epoch, sample ids). There are two kinds, which input.py gives to the backend:

    a crop    top, left: whole pixels                           augment_forward
    a box     top, left, height, width: real numbers, resized   resize_crop_forward

Crops are those of the AlexNet paper (section 4.1): a 224 crop of a 256 image has 33 x 33 places, and with its mirror
images there are 2178 (the paper prints 2048). Boxes are those of its descendants:

    scale     the short side is first resized to a size drawn from a range: VGG's [256, 512], ResNet's [256, 480]
    area      GoogLeNet: 8 to 100 % of the area, aspect 3/4 to 4/3, as torchvision's RandomResizedCrop draws them
    pad       ResNet on CIFAR-10: a crop of an image that is continued by 4 pixels on each side

Colour: the AlexNet paper adds [p1 p2 p3][a1 l1, a2 l2, a3 l3]^T to every pixel of an image, with p, l the eigenvectors
and eigenvalues of the covariance of RGB and a ~ N(0, 0.1) drawn once per image. Its units are not given, and the
readings differ by a factor of 250 on ImageNet:

    "paper"     l of RGB in 0..1, the shift scaled to 0..255           typically 5.5 grey levels
    "authors"   sqrt(l) of RGB in 0..255, as in their released code    11.9 levels; the image is then divided by 1.1,
                which is `Augment.factor`, for the caller to multiply the cropped images with
    "literal"   l of RGB in 0..255                                     1,414 levels: destroys the image; for the curious
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minicnn.errors import ConfigError
from minicnn.rng import normals, purpose_id, uniforms
from minicnn.shapes import finite, whole

COLOURS = (None, "paper", "authors", "literal")
PADDINGS = ("zero", "reflect")
LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4           # bits of `flip`
Draw = dict[str, Any]                              # flip uint8 (N,), shift float32 (N, 3), and
#                                                    of a crop: top, left int32 (N,)
#                                                    of a box: top, left, height, width float64 (N,), and its `border`
# The units of an image's random numbers. Their order is fixed: turning one kind on or off changes no other.
TOP, LEFT, MIRROR, UPDOWN, TURN, SCALE, CUTOUT_ROW, CUTOUT_COLUMN, AREAS = range(9)
TRIES = 10                                         # areas and aspects that are drawn, two units each, until one fits


@dataclass(frozen=True)
class Augment:
    """How training images are varied. Plain data.

    crop        side of the square cut out; in a recipe it becomes Preprocess.crop, which is where it is kept
    flip        mirror left-right half of the time
    alternate   mirror each image in every second epoch instead, from a random one of the first two on
    updown      mirror up-down half of the time: for images without an upright position
    transpose   swap rows and columns half of the time; with both flips, all quarter turns
    colour      None, or a reading of the paper's colour shift (see above)
    colour_std  standard deviation of a
    scale       None, or the least and the largest short side that an image is resized to before the crop, inclusive
    area        None, or the least and the largest share of an image's area that is cut out and resized to the crop
    aspect      of these areas: the least and the largest width / height, drawn evenly on a logarithmic scale
    pad         pixels by which an image is continued on each side before the crop
    padding     by what: "zero", after the mean has been subtracted, or "reflect"
    cutout      side of a square that is set to 0, the mean; its centre is anywhere in the crop, and it may stick out
    """

    crop: int | None = None
    flip: bool = True
    updown: bool = False
    transpose: bool = False
    colour: str | None = None
    colour_std: float = 0.1
    alternate: bool = False
    scale: tuple[int, int] | None = None
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    padding: str = "zero"
    cutout: int = 0

    def __post_init__(self):
        for name, value, known in (("colour", self.colour, COLOURS), ("padding", self.padding, PADDINGS)):
            if value not in known:
                raise ConfigError(f"no {name} augmentation {value!r}; expected one of {', '.join(map(str, known))}")
        for name, least in (("scale", 1), ("area", 0), ("aspect", 0)):
            self._check_range(name, least)
        if self.area and self.area[1] > 1:
            raise ConfigError(f"Augment.area = {self.area}: an image has no more than 1 of its area")
        for name in ("flip", "updown", "transpose", "alternate"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"Augment.{name} is on or off, True or False, not {getattr(self, name)!r}")
        for name in ("pad", "cutout"):
            whole(getattr(self, name), f"Augment.{name}, in pixels,", 0)
        if finite(self.colour_std, "Augment.colour_std") < 0:
            raise ConfigError(f"Augment.colour_std must be 0 or more, got {self.colour_std}")
        if len(boxes := [name for name in ("scale", "area", "pad") if getattr(self, name)]) > 1:
            raise ConfigError(f"Augment.{boxes[0]} and Augment.{boxes[1]} are two ways to draw a crop; choose one")
        if self.alternate and not self.flip:
            raise ConfigError("Augment.alternate says when images are mirrored, and flip is off; turn it on")

    def _check_range(self, name: str, least: float) -> None:
        """ConfigError unless the field is None or two positive numbers, the smaller one first."""
        value = getattr(self, name)
        if value is None:
            return
        try:
            low, high = value
            fits = max(least, 1e-9) <= low <= high
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ConfigError(f"Augment.{name} must be two positive numbers, the smaller one first, not {value!r}")
        object.__setattr__(self, name, (low, high))

    @property
    def factor(self) -> float:
        """What cropped training images are multiplied with: 1, or the authors' 1 / (1 + 0.1).

        By their code's comment, this keeps the scale of training near that of testing, where no shift is added.
        """
        return 1.0 / (1.0 + self.colour_std) if self.colour == "authors" else 1.0

    def draw(self, seed: int, epoch: int, sample_ids: np.ndarray, image_hw, pca=None, *, crop: int | None = None,
             short: int | None = None) -> Draw:
        """The crops or boxes, flips and shifts of these images in this epoch.

        sample_ids uint32 (N,); image_hw: (A, B) of all images, or two arrays (N,); pca: (eigenvalues, eigenvectors) of
        RGB in 0..1, where there is a colour shift; crop: its side, by default `self.crop`; short: what the short side
        is resized to where `scale` does not say, None for nothing. ConfigError when the crop does not fit, or it or the
        pca is missing.
        """
        units = AREAS + 2 * TRIES if self.area else AREAS
        u = uniforms(seed, purpose_id("augment"), epoch, sample_ids, units).astype(np.float64)  # (N, units)
        left_right = u[:, MIRROR] < 0.5
        if self.alternate:
            first = uniforms(seed, purpose_id("augment"), 0, sample_ids, MIRROR + 1)[:, MIRROR]
            left_right = (first < 0.5) ^ bool(epoch % 2)
        flip = (LEFT_RIGHT * (self.flip & left_right) + UP_DOWN * (self.updown & (u[:, UPDOWN] < 0.5))
                + TRANSPOSE * (self.transpose & (u[:, TURN] < 0.5)))
        return {**self._place(u, crop or self.crop, image_hw, short), "flip": flip.astype(np.uint8),
                "shift": self._shift(seed, epoch, sample_ids, pca)}

    def _place(self, u: np.ndarray, crop: int | None, image_hw, short: int | None) -> Draw:
        """Where the crops or boxes are."""
        if self.area:
            return self._areas(u, image_hw)
        if self.scale or short:
            low, high = self.scale or (short, short)
            offsets(crop, (low, low))
            size, ratio = rescaled(image_hw, low + (u[:, SCALE] * (high - low + 1)).astype(np.int64))
            rows, columns = offsets(crop, size)
            return box(_up_to(rows, u[:, TOP]), _up_to(columns, u[:, LEFT]), crop, ratio)
        pad = self.pad
        rows, columns = offsets(crop, tuple(side + 2 * pad for side in image_hw))
        top, left = _up_to(rows, u[:, TOP]), _up_to(columns, u[:, LEFT])
        if not pad:
            return {"top": top.astype(np.int32), "left": left.astype(np.int32)}
        if pad >= np.min(image_hw):
            raise ConfigError(f"images of {image_hw[0]}x{image_hw[1]} cannot be padded by {pad} pixels; choose fewer")
        return box(top - pad, left - pad, crop, np.ones(len(u)), self.padding)

    def _areas(self, u: np.ndarray, image_hw) -> Draw:
        """GoogLeNet's boxes, of whole pixels: the first of TRIES areas and aspects that fits into the image.

        Where none does, the largest central box of an allowed aspect.
        """
        A, B = (np.broadcast_to(side, len(u)).astype(np.float64)[:, None] for side in image_hw)      # (N, 1)
        (least, most), (narrow, wide) = self.area, self.aspect
        area = A * B * (least + u[:, AREAS::2] * (most - least))                                     # (N, TRIES)
        aspect = np.exp(np.log(narrow) + u[:, AREAS + 1::2] * (np.log(wide) - np.log(narrow)))
        height, width = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
        fits = (height > 0) & (height <= A) & (width > 0) & (width <= B)
        first = np.arange(len(u)), fits.argmax(axis=1)
        A, B, found = A[:, 0], B[:, 0], fits.any(axis=1)
        height = np.where(found, height[first], np.minimum(A, np.rint(B / narrow)))
        width = np.where(found, width[first], np.minimum(B, np.rint(A * wide)))
        top, left = _up_to(A - height, u[:, TOP]), _up_to(B - width, u[:, LEFT])
        return {"top": np.where(found, top, (A - height) // 2), "left": np.where(found, left, (B - width) // 2),
                "height": height, "width": width, "border": "inside"}

    def draw_cutout(self, seed: int, epoch: int, sample_ids: np.ndarray, crop: int) -> dict[str, np.ndarray]:
        """The squares that are set to 0, as cutout_forward takes them: int32 (N,) each."""
        u = uniforms(seed, purpose_id("augment"), epoch, sample_ids, CUTOUT_COLUMN + 1).astype(np.float64)
        top, left = ((crop * u[:, unit]).astype(np.int32) - self.cutout // 2 for unit in (CUTOUT_ROW, CUTOUT_COLUMN))
        side = np.full(len(u), self.cutout, np.int32)
        return {"top": top, "left": left, "height": side, "width": side.copy()}

    def _shift(self, seed: int, epoch: int, sample_ids: np.ndarray, pca) -> np.ndarray:
        """Colour shift in grey levels, float32 (N, 3)."""
        if self.colour is None:
            return np.zeros((len(sample_ids), 3), np.float32)
        if pca is None:
            raise ConfigError(f"colour={self.colour!r} needs the principal components of the training set's RGB")
        eigenvalues, eigenvectors = (np.asarray(part, np.float64) for part in pca)
        scale = {"paper": 255.0 * eigenvalues, "authors": 255.0 * np.sqrt(eigenvalues),
                 "literal": 255.0**2 * eigenvalues}[self.colour]
        alpha = self.colour_std * normals(seed, purpose_id("colour"), epoch, sample_ids, 3)     # (N, 3)
        return ((alpha * scale) @ eigenvectors.T).astype(np.float32)                            # (N, 3) of R, G, B


def central_crop(n: int, crop: int, image_hw: tuple[int, int]) -> Draw:
    """The central crop of each of n images."""
    rows, columns = offsets(crop, image_hw)
    return fixed_crop(n, rows // 2, columns // 2)


def central_box(n: int, crop: int, image_hw, short: int) -> Draw:
    """The central crop of each of n images whose short side is resized to `short`."""
    size, ratio = rescaled(image_hw, short)
    rows, columns = offsets(crop, size)
    return fixed_box(n, rows // 2, columns // 2, crop, ratio)


def fixed_box(n: int, top, left, size: int | tuple, ratio, flip: int = 0) -> Draw:
    """The box of each of n images; see `box`."""
    still = fixed_crop(n, 0, 0, flip)
    return {**box(*(np.broadcast_to(part, n) for part in (top, left)), size, np.broadcast_to(ratio, n)),
            "flip": still["flip"], "shift": still["shift"]}


def fixed_crop(n: int, top: int, left: int, flip: int = 0) -> Draw:
    """The same crop of each of n images."""
    return {"top": np.full(n, top, np.int32), "left": np.full(n, left, np.int32),
            "flip": np.full(n, flip, np.uint8), "shift": np.zeros((n, 3), np.float32)}


def rescaled(image_hw, short) -> tuple[tuple, np.ndarray]:
    """(rows, columns) of images whose short side is resized to `short`; and old pixels in one new one, float64."""
    A, B = (np.asarray(side, np.int64) for side in image_hw)
    old = np.minimum(A, B)
    return (A * short // old, B * short // old), old / short


def box(top, left, size: int | tuple, ratio, border: str = "inside") -> Draw:
    """The box of a crop of `size` (a side, or height and width) at (top, left) of images that were resized.

    ratio: old pixels in one new one; top, left, ratio (N,).
    """
    height, width = (size, size) if np.ndim(size) == 0 else size
    numbers = {"top": top * ratio, "left": left * ratio, "height": height * ratio, "width": width * ratio}
    return {name: np.asarray(values, np.float64) for name, values in numbers.items()} | {"border": border}


def _up_to(most, u: np.ndarray) -> np.ndarray:
    """Whole numbers 0..most from u in [0, 1), int64 (N,)."""
    return (u * (np.asarray(most) + 1)).astype(np.int64)


def offsets(crop: int | None, image_hw) -> tuple:
    """The largest offsets (top, left) of a crop, in one size of images or many. ConfigError where it does not fit."""
    if crop is None:
        raise ConfigError("the side of the crop is not known; name it, as in Augment(crop=224)")
    rows, columns = image_hw[0] - crop, image_hw[1] - crop
    if crop < 1 or min(np.min(rows), np.min(columns)) < 0:
        raise ConfigError(f"a crop of {crop} does not fit into images of {np.min(image_hw[0])}x{np.min(image_hw[1])}; "
                          "choose a larger image size or a smaller crop")
    return rows, columns
