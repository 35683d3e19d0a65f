"""From a batch of photographs to what the net takes: crops of the right size, minus the mean, on the net's backend.

    training     the crops, flips and colours that the recipe draws for these images in this epoch
    testing      the central crop, or the paper's ten: corners and centre, and their mirror images
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minicnn.data.augment import Augment, centre, ten_crops
from minicnn.data.loader import Batch
from minicnn.errors import ConfigError


class InputPipeline:
    """mean: (A, B, 3), the mean image of the training set.   pca: (eigenvalues, eigenvectors) of its colours."""

    def __init__(self, net, augment: Augment, mean: np.ndarray, pca=None, seed: int = 0):
        if net.input_shape != (augment.crop, augment.crop, 3):
            raise ConfigError(f"the net takes images of {' x '.join(map(str, net.input_shape))}, but the recipe cuts "
                              f"crops of {augment.crop} x {augment.crop} x 3; set the recipe's augment.crop")
        self.net, self.ops, self.augment, self.pca, self.seed = net, net.ops, augment, pca, seed
        self.mean = self.ops.from_host(np.ascontiguousarray(mean, net.dtype))
        self._x = None

    def train(self, batch: Batch, epoch: int):
        """Images (N, crop, crop, 3) to learn from. Overwritten by the next call."""
        draw = self.augment.draw(self.seed, epoch, batch.sample_ids, batch.images.shape[1:3], self.pca)
        x = self._cut(self.ops.upload(batch.images), draw)
        if self.augment.factor != 1:
            x *= np.dtype(self.net.dtype).type(self.augment.factor)
        return x

    def test(self, batch: Batch, ten_crop: bool = False) -> Iterator:
        """Images (N, crop, crop, 3) to judge by: one array, or ten one after the other, each overwriting the last."""
        shape = (len(batch.images), self.augment.crop, batch.images.shape[1:3])
        images = self.ops.upload(batch.images)
        for draw in ten_crops(*shape) if ten_crop else [centre(*shape)]:
            yield self._cut(images, draw)

    def _cut(self, images, draw: dict[str, np.ndarray]):
        if self._x is None or len(self._x) < len(images):
            self._x = self.ops.empty((len(images), *self.net.input_shape), self.net.dtype)
        x = self._x[:len(images)]
        draw = {**draw, "shift": draw["shift"].astype(self.net.dtype)}
        self.ops.augment_forward(images, x, mean=self.mean,
                                 **{name: self.ops.from_host(array) for name, array in draw.items()})
        return x
