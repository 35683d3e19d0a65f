"""Crops, flips and colour shifts of training images, as numbers (sections 4.1 and 4 of the paper).

A draw is a pure function of (seed, epoch, sample ids); the backend's `augment_forward(images, y, mean=..., **draw)`
applies it. A 224 crop of a 256 image has 33 x 33 places, and with its mirror images there are 2178 (the paper prints
2048).

Colour: the paper adds [p1 p2 p3][a1 l1, a2 l2, a3 l3]^T to every pixel of an image, with p, l the eigenvectors and
eigenvalues of the covariance of RGB and a ~ N(0, 0.1) drawn once per image. Its units are not given, and the readings
differ by a factor of 250 on ImageNet:

    "paper"     l of RGB in 0..1, the shift scaled to 0..255           typically 5.5 grey levels
    "authors"   sqrt(l) of RGB in 0..255, as in their released code    11.9 levels; the image is then divided by 1.1,
                which is `Augment.factor`, for the caller to multiply the cropped images with
    "literal"   l of RGB in 0..255                                     1,414 levels: destroys the image; for the curious
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError
from minicnn.rng import normals, purpose_id, uniforms

COLOURS = (None, "paper", "authors", "literal")
LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4           # bits of `flip`
Draw = dict[str, np.ndarray]                       # top, left int32 (N,), flip uint8 (N,), shift float32 (N, 3)


@dataclass(frozen=True)
class Augment:
    """How training images are varied. Plain data.

    crop        side of the square cut out; in a recipe it becomes Preprocess.crop, which is where it is kept
    flip        mirror left-right half of the time
    updown      mirror up-down half of the time: for images without an upright position
    transpose   swap rows and columns half of the time; with both flips, all quarter turns
    colour      None, or a reading of the paper's colour shift (see above)
    colour_std  standard deviation of a
    """

    crop: int | None = None
    flip: bool = True
    updown: bool = False
    transpose: bool = False
    colour: str | None = None
    colour_std: float = 0.1

    def __post_init__(self):
        if self.colour not in COLOURS:
            known = ", ".join(map(str, COLOURS))
            raise ConfigError(f"no colour augmentation {self.colour!r}; expected one of {known}")

    @property
    def factor(self) -> float:
        """What cropped training images are multiplied with: 1, or the authors' 1 / (1 + 0.1).

        By their code's comment, this keeps the scale of training near that of testing, where no shift is added.
        """
        return 1.0 / (1.0 + self.colour_std) if self.colour == "authors" else 1.0

    def draw(self, seed: int, epoch: int, sample_ids: np.ndarray, image_hw: tuple[int, int], pca=None, *,
             crop: int | None = None) -> Draw:
        """The crops, flips and shifts of these images in this epoch.

        sample_ids uint32 (N,); image_hw (A, B), what the crop is cut from; pca (eigenvalues, eigenvectors) of RGB in
        0..1, where there is a colour shift; crop: its side, by default `self.crop`. ConfigError when the crop does not
        fit, or it or the pca is missing.
        """
        rows, columns = offsets(crop or self.crop, image_hw)
        # The order of the units is fixed: turning one kind on or off changes no other.
        u = uniforms(seed, purpose_id("augment"), epoch, sample_ids, 5).astype(np.float64)      # (N, 5)
        flip = (LEFT_RIGHT * (self.flip & (u[:, 2] < 0.5)) + UP_DOWN * (self.updown & (u[:, 3] < 0.5))
                + TRANSPOSE * (self.transpose & (u[:, 4] < 0.5)))
        return {"top": (u[:, 0] * (rows + 1)).astype(np.int32), "left": (u[:, 1] * (columns + 1)).astype(np.int32),
                "flip": flip.astype(np.uint8), "shift": self._shift(seed, epoch, sample_ids, pca)}

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


def fixed_crop(n: int, top: int, left: int, flip: int = 0) -> Draw:
    """The same crop of each of n images."""
    return {"top": np.full(n, top, np.int32), "left": np.full(n, left, np.int32),
            "flip": np.full(n, flip, np.uint8), "shift": np.zeros((n, 3), np.float32)}


def offsets(crop: int | None, image_hw: tuple[int, int]) -> tuple[int, int]:
    """The largest offsets (top, left) of a crop. ConfigError where it does not fit."""
    if crop is None:
        raise ConfigError("the side of the crop is not known; name it, as in Augment(crop=224)")
    rows, columns = image_hw[0] - crop, image_hw[1] - crop
    if crop < 1 or min(rows, columns) < 0:
        raise ConfigError(f"a crop of {crop} does not fit into images of {image_hw[0]}x{image_hw[1]}; "
                          "choose a smaller crop or a larger image size")
    return rows, columns
