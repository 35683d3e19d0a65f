"""How a photograph becomes the array that a network takes, as plain data: recipes and checkpoints hold one.

    file   -> uint8 (size, size, 3), RGB            resize, interpolation; see images.py
    image  -> (crop, crop, 3)                       the central square, of the image resized to `short_side` where that
                                                    is not its size; training draws its own crops, see augment.py
    pixels -> (pixels * range / 255 - mean) / std   float, with the channels in `order`; see input.py

The defaults are the AlexNet paper's: short side to 256, crops of 224, RGB in 0..255 minus the mean image.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import ASPECT, Dataset
from minicnn.data.images import INTERPOLATIONS, RESIZES, load
from minicnn.errors import ConfigError, expected

IMAGE, CHANNEL = "image", "channel"
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """What happens to the pixels before the first layer.

    size            side of the resized image; None in a recipe: that of the data set
    resize          "short": the short side becomes `size`, and the central square is kept; "squash": both sides do;
                    "aspect": the short side does, and all of the image is kept
    interpolation   "bicubic", "bilinear", "lanczos", "box" (all antialiased), or "nearest"
    crop            side of the square that the network takes
    order           of the channels: "rgb", or "bgr" as in Caffe
    range           255 for pixels in 0..255, 1 for 0..1
    mean            subtracted: "image", that of the training set (stored in RGB, 0..255); "channel", the mean of that
                    over its pixels; one value a channel; or None
    std             divided by: one value a channel; or None
    test_size       short side to which images are resized before the central crop is cut; None: as they are, or where
                    they keep their aspect, crop * 8 / 7, which is 256 for crops of 224
    mean and std, where they are values, are in the network's channel order and range.
    """

    size: int | None = 256
    resize: str = "short"
    interpolation: str = "bicubic"
    crop: int = 224
    order: str = "rgb"
    range: int = 255
    mean: str | Channels | None = IMAGE
    std: Channels | None = None
    test_size: int | None = None

    def __post_init__(self):
        for name, known in (("resize", RESIZES), ("interpolation", INTERPOLATIONS), ("order", ("rgb", "bgr"))):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"Preprocess.{name} cannot be {value!r}: {expected(str(value), known)}")
        if self.range not in (1, 255):
            raise ConfigError(f"Preprocess.range must be 255, for pixels in 0..255, or 1, for 0..1, not {self.range!r}")
        if self.crop < 1 or (self.size is not None and self.size < self.crop):
            raise ConfigError(f"a crop of {self.crop} does not fit into images of {self.size}x{self.size}; choose a "
                              "larger size or a smaller crop")
        if self.test_size is not None and self.test_size < self.crop:
            raise ConfigError(f"a crop of {self.crop} does not fit into images of a short side of {self.test_size}, "
                              "Preprocess.test_size; choose a larger one")
        if self.mean not in (IMAGE, CHANNEL, None):
            object.__setattr__(self, "mean", _channels("mean", self.mean))
        if self.std is not None:
            object.__setattr__(self, "std", _channels("std", self.std))
            if min(self.std) <= 0:
                raise ConfigError(f"Preprocess.std must be positive for every channel, not {self.std}")

    @property
    def short_side(self) -> int | None:
        """What the short side of an image is resized to before its central crop is cut; None: it is not resized."""
        return self.test_size or (round(self.crop * 8 / 7) if self.resize == ASPECT else None)

    def to_dict(self) -> dict:
        """What JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Preprocess:
        """The inverse of `to_dict`; raises ConfigError for a setting that does not exist."""
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise ConfigError(f"Preprocess has no setting {unknown[0]!r}: {expected(unknown[0], known)}")
        return cls(**data)

    def of(self, dataset: Dataset) -> Preprocess:
        """This preprocessing with the size that the data set's images have. ConfigError if they were decoded otherwise.

        Where a data set does not know how it was decoded, or decoded nothing, only the size is compared.
        """
        size = dataset.image_shape[0]
        if self.size not in (None, size):
            raise ConfigError(f"the recipe resizes images to {self.size} x {self.size}, those of {dataset.name} are "
                              f"{size} x {size}; open the data with size={self.size}")
        if dataset.decoding not in (None, (self.resize, self.interpolation)):
            raise ConfigError(f"the recipe resizes images by {self.resize!r} and {self.interpolation!r}, those of "
                              f"{dataset.name} were by {' and '.join(map(repr, dataset.decoding))}; open the data with "
                              f"resize={self.resize!r}, interpolation={self.interpolation!r}")
        return dataclasses.replace(self, size=size)

    def load(self, path: str) -> np.ndarray:
        """The image in this file, resized: uint8 (size, size, 3) or (A, B, 3), RGB. Raises ImageError."""
        return load(path, self.size, resize=self.resize, interpolation=self.interpolation)


def _channels(name: str, values) -> Channels:
    """Three numbers, as floats."""
    try:
        red, green, blue = map(float, values)
    except (TypeError, ValueError):
        words = " 'image', 'channel', None or" if name == "mean" else " None or"
        raise ConfigError(f"Preprocess.{name} must be{words} three numbers, one a channel, not {values!r}") from None
    return red, green, blue


TORCHVISION = Preprocess(interpolation="bilinear", range=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CAFFE = Preprocess(resize="squash", interpolation="bilinear", crop=227, order="bgr", mean=(104.0, 117.0, 123.0))
