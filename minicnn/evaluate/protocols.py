"""How the papers evaluated a network: what it sees of each image, and how its outputs become one.

    crops    each view gives probabilities, which are averaged                      AlexNet, VGG, GoogLeNet, ResNet
    dense    the whole image at a size: the map of logits is averaged over its positions, then the softmax, averaged
             with that of the mirror image and over the sizes                       VGG, section 3.2; ResNet, 3.4

Sizes are what the short side is resized to. Those of PROTOCOLS are for crops of 224; a net of other crops gets others,
in proportion. A batch is processed view after view, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.data.augment import Draw, fixed_box, rescaled
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch
from minicnn.errors import ConfigError, expected_one_of
from minicnn.evaluate.crops import FLIPS, SIX, grid_crops, one_crop, six_views, square_crops, ten_crops
from minicnn.evaluate.dense import dense, set_size

Views = Callable[..., Iterable[Draw]]              # (images, crop, image_hw, size or None) -> draws
Seen = Callable[[float], None]                     # is called with the number of images that were seen: of views, parts


@dataclass(frozen=True)
class Protocol:
    """label: in reports.   about: one line of help.   views: of an image at one size; None for dense.   scales: the
    sizes, where crops are 224; empty: the one that the preprocessing resizes to.   weights: of the views, where the
    softmax is of their weighted sum of logits, and not averaged."""

    label: str
    about: str
    views: Views | None = None
    scales: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    def of(self, net, pipeline: InputPipeline, batch: int, scales: Sequence[int] = (),
           seen: Seen = lambda images: None) -> Callable[[Batch], np.ndarray]:
        """What gives the probabilities (n, K) of a batch.   scales: sizes in place of the protocol's, as they are.

        batch: about as many crops' memory may be used.   seen: is called after every view with n / views. ConfigError
        for sizes that are smaller than a crop.
        """
        sizes = list(scales) or [round(size * pipeline.crop / 224) for size in self.scales]
        if sizes and min(sizes) < pipeline.crop:
            raise ConfigError(f"{self.label}: the net takes crops of {pipeline.crop}, and images were to be resized to "
                              f"a short side of {min(sizes)}; choose larger sizes")
        if self.views is None:
            return Dense(net, pipeline, sizes, batch, seen)
        return Crops(net, pipeline, sizes, self.views, seen, self.weights)


class Crops:
    """The mean of the probabilities of all views; with weights, the probabilities of the weighted sum of logits."""

    def __init__(self, net, pipeline: InputPipeline, sizes: Sequence[int], views: Views, seen: Seen,
                 weights: tuple[float, ...] = ()):
        self.net, self.pipeline, self.sizes, self.views, self.weights = net, pipeline, sizes, views, weights
        self.seen = seen

    def __call__(self, batch: Batch) -> np.ndarray:
        pipeline, n = self.pipeline, len(batch.labels)
        draws = [draw for size in self.sizes or [pipeline.preprocess.short_side]
                 for draw in self.views(n, pipeline.crop, batch.image_hw, size)]
        outputs = self._outputs(batch, draws)
        if self.weights:
            repeats = len(draws) // len(self.weights)
            return softmax(sum(weight * y for weight, y in zip(self.weights * repeats, outputs, strict=True)) / repeats)
        return sum(map(softmax, outputs)) / len(draws)

    def _outputs(self, batch: Batch, draws: list[Draw]) -> Iterator[np.ndarray]:
        """The logits (n, K) of each view."""
        for x in self.pipeline.views(batch, draws):
            yield self.net.ops.to_host(self.net.forward(x, train=False))
            self.seen(len(batch.labels) / len(draws))


class Dense:
    """Whole images, at each size, and their mirror images. Those of one shape are processed together."""

    def __init__(self, net, pipeline: InputPipeline, sizes: Sequence[int], batch: int, seen: Seen):
        self.pipeline, self.sizes, self.pixels, self.seen = pipeline, sizes, batch * pipeline.crop**2, seen
        self.wide = dense(net, pipeline.crop)

    def __call__(self, batch: Batch) -> np.ndarray:
        A, B = (np.broadcast_to(side, len(batch.labels)) for side in batch.image_hw)
        default = self.pipeline.preprocess.short_side
        sizes = self.sizes or [default or int(A[0])]
        return sum(self._at(batch, *rescaled((A, B), size)[0]) for size in sizes) / len(sizes)

    def _at(self, batch: Batch, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) of images resized to (rows, columns), arrays (n,)."""
        found = np.empty((len(rows), self.pipeline.net.num_classes))
        for shape in sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))):
            those = np.flatnonzero((rows == shape[0]) & (columns == shape[1]))
            together = max(1, self.pixels // (shape[0] * shape[1]))
            for first in range(0, len(those), together):
                some = those[first:first + together]
                found[some] = self._of_one_shape(batch.select(some), shape)
        return found

    def _of_one_shape(self, batch: Batch, shape: tuple[int, int]) -> np.ndarray:
        set_size(self.wide, shape)
        n = len(batch.labels)
        whole = tuple(np.broadcast_to(side, n) for side in batch.image_hw)
        draws = [fixed_box(n, 0, 0, whole, 1.0, flip) for flip in FLIPS]
        return sum(self._probabilities(batch, draws, shape)) / len(draws)

    def _probabilities(self, batch: Batch, draws: list[Draw], shape: tuple[int, int]) -> Iterator[np.ndarray]:
        """Those of each view (n, K)."""
        n = len(batch.labels)
        for x in self.pipeline.views(batch, draws, shape):
            y = np.asarray(self.wide.ops.to_host(self.wide(x)), np.float64)
            yield softmax(y.reshape(n, -1, y.shape[-1]).mean(axis=1))
            self.seen(n / len(draws) / max(1, len(self.sizes)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K), in float64 so that a small one is not rounded to 0."""
    logits = np.asarray(logits, np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


PROTOCOLS = {
    "crop": Protocol("centre crop", "the central crop", one_crop),
    "ten-crop": Protocol("ten crops", "AlexNet's: corners and centre, and their mirror images", ten_crops),
    "six-view": Protocol("six views", "airbench's: the centre and it moved by a pixel both ways, mirrored; of logits",
                         six_views, weights=SIX),
    "dense": Protocol("dense", "VGG's: the whole image, and its mirror image"),
    "vgg-150": Protocol("150 crops", "VGG's: a grid of 5 x 5, mirrored, at 256, 384 and 512", grid_crops,
                        (256, 384, 512)),
    "googlenet-144": Protocol("144 crops", "GoogLeNet's: three squares, six crops of each, mirrored, at 256, 288, 320, "
                              "352", square_crops, (256, 288, 320, 352)),
    "resnet": Protocol("dense at five sizes", "ResNet's: dense at 224, 256, 384, 480 and 640", None,
                       (224, 256, 384, 480, 640)),
}


def find_protocol(name: str) -> Protocol:
    """ConfigError for a name that does not exist."""
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}: {expected_one_of(name, PROTOCOLS)}")
    return PROTOCOLS[name]
