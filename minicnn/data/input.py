"""From a batch of photographs to what the network takes: crops, minus the mean, on the network's backend.

    training      the crops, flips and colours that the recipe draws for these images in this epoch
    evaluation    the central crop, or other views that the caller names (minicnn/evaluate/crops.py)

A crop of whole pixels of images of one size is cut by augment_forward; a box, which is resized, by resize_crop_forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from minicnn.data.augment import Augment, Draw, central_box, central_crop
from minicnn.data.loader import Batch, Photographs
from minicnn.data.preprocess import CHANNEL, IMAGE, Preprocess
from minicnn.errors import ConfigError
from minicnn.kernels.reference.resize_crop import taps
from minicnn.shapes import Pair

KEPT_MEANS = 8                 # mean images of other sizes that are kept, for views of other sizes


class InputPipeline:
    """Batches of uint8 images, preprocessed for `net`.

    mean: (A, B, 3) or (crop, crop, 3), RGB in 0..255, where `preprocess.mean` is "image" or "channel"; else it is not
    used.   augment, pca, seed: for `train`; pca is (eigenvalues, eigenvectors) of the training set's colours.
    """

    def __init__(self, net, preprocess: Preprocess, mean: np.ndarray | None = None, *, augment: Augment | None = None,
                 pca=None, seed: int = 0):
        self.crop, self.preprocess = preprocess.crop, preprocess
        if net.input_shape != (self.crop, self.crop, 3):
            raise ConfigError(f"the net takes images of {' x '.join(map(str, net.input_shape))}, but the recipe cuts "
                              f"crops of {self.crop} x {self.crop} x 3; set the crop of the recipe's Preprocess")
        self.net, self.ops, self.augment, self.pca, self.seed = net, net.ops, augment or Augment(), pca, seed
        self._mean_image = np.ascontiguousarray(self._mean(mean), net.dtype)
        self.mean = self.ops.from_host(self._mean_image)
        self._means: dict[Pair, object] = {}
        scale = np.full(3, preprocess.range / 255) / (preprocess.std or 1.0)
        self._scale = None if (scale == 1).all() else self.ops.from_host(scale.astype(net.dtype))      # (3,)
        self._x: dict[str, object] = {}                         # dtype -> images

    def _mean(self, image: np.ndarray | None) -> np.ndarray:
        """What is subtracted from pixels in 0..255, in the network's channel order."""
        preprocess = self.preprocess
        if preprocess.mean not in (IMAGE, CHANNEL):
            return np.broadcast_to(np.multiply(preprocess.mean or 0.0, 255 / preprocess.range), self.net.input_shape)
        if image is None:
            raise ConfigError("the preprocessing subtracts the mean image of the training set, and none was given; "
                              "measure it, or give Preprocess.mean one value a channel")
        if preprocess.mean == CHANNEL:
            return np.broadcast_to(self._in_order(image.mean(axis=(0, 1), dtype=np.float64)), self.net.input_shape)
        sides = {preprocess.size or image.shape[0], self.crop}
        if image.shape not in {(side, side, 3) for side in sides}:
            raise ConfigError(f"the mean image is {' x '.join(map(str, image.shape))}, expected that of images, or of "
                              f"crops: {' or '.join(f'{side} x {side} x 3' for side in sorted(sides))}")
        return self._in_order(image)

    def whole_preprocess(self) -> tuple[Preprocess, np.ndarray | None]:
        """The preprocessing with the values of its mean, and the mean image where it subtracts one: (H, W, 3), RGB."""
        preprocess = self.preprocess
        if preprocess.mean == CHANNEL:
            values = self._mean_image[0, 0].astype(np.float64) * (preprocess.range / 255)
            return replace(preprocess, mean=tuple(values.tolist())), None
        return preprocess, self._in_order(self._mean_image) if preprocess.mean == IMAGE else None

    def _in_order(self, channels):
        """RGB in the last axis -> the network's channel order."""
        return channels[..., ::-1] if self.preprocess.order == "bgr" else channels

    def train(self, batch: Batch, epoch: int, *, stored: str | None = None):
        """Images (N, crop, crop, 3) to learn from. Overwritten by the next call.

        stored: the dtype of activations, "uint16" for bf16; images have it too, unless they are multiplied here.
        """
        augment = self.augment
        multiplied = self._scale is not None or augment.factor != 1
        dtype = self.net.dtype if multiplied or stored is None else stored
        short = self.preprocess.short_side if isinstance(batch.images, Photographs) else None
        draw = augment.draw(self.seed, epoch, batch.sample_ids, batch.image_hw, self.pca, crop=self.crop, short=short)
        x = next(self.views(batch, [draw], dtype=dtype))
        if augment.factor != 1:
            x *= np.dtype(self.net.dtype).type(augment.factor)
        if augment.cutout:
            squares = augment.draw_cutout(self.seed, epoch, batch.sample_ids, self.crop)
            self.ops.cutout_forward(x, **{name: self.ops.from_host(array) for name, array in squares.items()})
        return x

    def evaluation(self, batch: Batch):
        """The central crops, (N, crop, crop, 3). Overwritten by the next call."""
        return next(self.views(batch, [self.central(batch)]))

    def central(self, batch: Batch) -> Draw:
        """The central crop of each image, resized first where the preprocessing says so."""
        if self.preprocess.short_side is None:
            return central_crop(len(batch.images), self.crop, batch.image_hw)
        return central_box(len(batch.images), self.crop, batch.image_hw, self.preprocess.short_side)

    def views(self, batch: Batch, draws: Iterable[Draw], size: Pair | None = None, *,
              dtype: str | None = None) -> Iterator:
        """Images of each of these crops, one after the other, each overwriting the last.

        size: of the boxes after resizing, (H, W); by default crop x crop.   dtype: by default the network's.
        """
        images, size = self._uploaded(batch.images), size or (self.crop, self.crop)
        for draw in draws:
            yield self._cut(images, draw, size, dtype or self.net.dtype)

    def _uploaded(self, images: np.ndarray | Photographs) -> np.ndarray | Photographs:
        """The same on the backend, in the network's channel order."""
        if not isinstance(images, Photographs):
            return self.ops.upload(np.ascontiguousarray(self._in_order(images)))
        pixels = self._in_order(images.pixels.reshape(-1, 3)).reshape(-1)
        return Photographs(self.ops.upload(np.ascontiguousarray(pixels)), *map(self.ops.from_host, (
            images.offsets, images.heights, images.widths)))

    def _cut(self, images, draw: Draw, size: Pair, dtype: str):
        """uint8 images -> (N, H, W, 3) of this dtype."""
        shape = (*size, 3)
        x = self._x.get(dtype)
        if x is None or len(x) < len(images) or x.shape[1:] != shape:
            x = self._x[dtype] = self.ops.empty((len(images), *shape), dtype)
        x = x[:len(images)]
        shift = np.ascontiguousarray(self._in_order(draw["shift"]), self.net.dtype)                    # (N, 3)
        options = {name: self.ops.from_host(value) if isinstance(value, np.ndarray) else value
                   for name, value in {**draw, "shift": shift}.items()}
        if "height" in draw:
            self._resize(images, x, options)
        else:
            self.ops.augment_forward(images, x, mean=self.mean, **options)
        if self._scale is not None:
            x *= self._scale
        return x

    def _resize(self, images, x, options: dict) -> None:
        """Boxes of images: of squares minus the mean image that is resized with them, else minus that of the crops."""
        of_one_size = not isinstance(images, Photographs)
        if of_one_size:
            (N, A, B, C), images = images.shape, images.reshape(-1)
            places = (np.arange(N, dtype=np.int32) * (A * B * C), np.full(N, A, np.int32), np.full(N, B, np.int32))
            images = Photographs(images, *map(self.ops.from_host, places))
        in_image_frame = of_one_size and not (self.preprocess.mean == IMAGE and self._mean_image.shape != (A, B, C))
        self.ops.resize_crop_forward(
            images.pixels, x, offsets=images.offsets, heights=images.heights, widths=images.widths,
            mean=self._mean_of((A, B) if in_image_frame else tuple(x.shape[1:3])), mean_of_image=in_image_frame,
            **options)

    def _mean_of(self, size: Pair):
        """The mean image, resized to this size, on the backend."""
        if size not in self._means:
            while len(self._means) >= KEPT_MEANS:
                del self._means[next(iter(self._means))]
            mean = np.broadcast_to(self._mean_image[0, 0], (*size, 3))
            if self.preprocess.mean == IMAGE:
                rows, columns = (taps(self._mean_image.shape[axis], 0, self._mean_image.shape[axis], size[axis])
                                 for axis in (0, 1))
                mean = np.einsum("iy,yxc,jx->ijc", rows, self._mean_image, columns, optimize=True)
            self._means[size] = self.ops.from_host(np.ascontiguousarray(mean, self.net.dtype))
        return self._means[size]
