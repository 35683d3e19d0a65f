"""From a batch of photographs to what the network takes: crops, minus the mean, on the network's backend.

    training      the crops, flips and colours that the recipe draws for these images in this epoch
    evaluation    the central crop, or other views that the caller names (minicnn/evaluate/crops.py)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from minicnn.data.augment import Augment, Draw, central_crop
from minicnn.data.loader import Batch
from minicnn.data.preprocess import IMAGE, Preprocess
from minicnn.errors import ConfigError


class InputPipeline:
    """Batches of uint8 images, preprocessed for `net`.

    mean: (A, B, 3) or (crop, crop, 3), RGB in 0..255, where `preprocess.mean` is "image"; else it is not used.
    augment, pca, seed: for `train`; pca is (eigenvalues, eigenvectors) of the training set's colours.
    """

    def __init__(self, net, preprocess: Preprocess, mean: np.ndarray | None = None, *, augment: Augment | None = None,
                 pca=None, seed: int = 0):
        self.crop, self.preprocess = preprocess.crop, preprocess
        if net.input_shape != (self.crop, self.crop, 3):
            raise ConfigError(f"the net takes images of {' x '.join(map(str, net.input_shape))}, but the recipe cuts "
                              f"crops of {self.crop} x {self.crop} x 3; set the crop of the recipe's Preprocess")
        self.net, self.ops, self.augment, self.pca, self.seed = net, net.ops, augment or Augment(), pca, seed
        self.mean = self.ops.from_host(np.ascontiguousarray(self._mean(mean), net.dtype))
        scale = np.full(3, preprocess.range / 255) / (preprocess.std or 1.0)
        self._scale = None if (scale == 1).all() else self.ops.from_host(scale.astype(net.dtype))      # (3,)
        self._x = None

    def _mean(self, image: np.ndarray | None) -> np.ndarray:
        """What is subtracted from pixels in 0..255, in the network's channel order."""
        preprocess = self.preprocess
        if preprocess.mean != IMAGE:
            return np.broadcast_to(np.multiply(preprocess.mean or 0.0, 255 / preprocess.range), self.net.input_shape)
        if image is None:
            raise ConfigError("the preprocessing subtracts the mean image of the training set, and none was given; "
                              "measure it, or give Preprocess.mean one value a channel")
        sides = {preprocess.size or image.shape[0], self.crop}
        if image.shape not in {(side, side, 3) for side in sides}:
            raise ConfigError(f"the mean image is {' x '.join(map(str, image.shape))}, expected that of images, or of "
                              f"crops: {' or '.join(f'{side} x {side} x 3' for side in sorted(sides))}")
        return self._in_order(image)

    def _in_order(self, channels):
        """RGB in the last axis -> the network's channel order."""
        return channels[..., ::-1] if self.preprocess.order == "bgr" else channels

    def train(self, batch: Batch, epoch: int):
        """Images (N, crop, crop, 3) to learn from. Overwritten by the next call."""
        draw = self.augment.draw(self.seed, epoch, batch.sample_ids, batch.images.shape[1:3], self.pca, crop=self.crop)
        x = next(self.views(batch, [draw]))
        if self.augment.factor != 1:
            x *= np.dtype(self.net.dtype).type(self.augment.factor)
        return x

    def evaluation(self, batch: Batch):
        """The central crops, (N, crop, crop, 3). Overwritten by the next call."""
        return next(self.views(batch, [central_crop(len(batch.images), self.crop, batch.images.shape[1:3])]))

    def views(self, batch: Batch, draws: Iterable[Draw]) -> Iterator:
        """Images (N, crop, crop, 3) of each of these crops, one after the other, each overwriting the last."""
        images = self.ops.upload(np.ascontiguousarray(self._in_order(batch.images)))
        for draw in draws:
            yield self._cut(images, draw)

    def _cut(self, images, draw: Draw):
        """images (N, A, B, 3) uint8 -> (N, crop, crop, 3) of the network's dtype."""
        if self._x is None or len(self._x) < len(images):
            self._x = self.ops.empty((len(images), *self.net.input_shape), self.net.dtype)
        x = self._x[:len(images)]
        shift = np.ascontiguousarray(self._in_order(draw["shift"]), self.net.dtype)                    # (N, 3)
        self.ops.augment_forward(images, x, mean=self.mean, **{
            name: self.ops.from_host(array) for name, array in {**draw, "shift": shift}.items()})
        if self._scale is not None:
            x *= self._scale
        return x
