"""Occlusion, as in Figure 7 of Zeiler and Fergus: a square is moved over the image, and the network's answer recorded.

Three maps over the positions of the square: the sum of the feature map that is strongest in the clean image (b), the
probability of the class (d), and the most probable class (e). The paper does not give the size of its square, its step
or its grey, so all three are arguments, and the caption names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError
from minicnn.system.terminal import is_terminal
from minicnn.visualize.gradients import last_map
from minicnn.visualize.units import check_unit, name_of, strongest

MEAN = "0 in the network's input, the mean where preprocessing subtracts it"


@dataclass(frozen=True)
class Occlusion:
    """activation, probability, best: (P, Q), for each position of the square; `tops` (P,) and `lefts` (Q,) of it.

    label: the class.   layer, unit: the map.   clean: (activation, probability) without a square.
    """

    activation: np.ndarray
    probability: np.ndarray
    best: np.ndarray
    tops: np.ndarray
    lefts: np.ndarray
    label: int
    layer: str
    unit: int
    clean: tuple[float, float]
    square: int
    step: int
    caption: str

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the maps in the image: a cell of `step` pixels at the centre of each square."""
        top, left = (int(first + (self.square - self.step) // 2) for first in (self.tops[0], self.lefts[0]))
        return top, left, top + self.step * len(self.tops), left + self.step * len(self.lefts)


def occlusion(net, x, label: int | None = None, *, layer: str | None = None, unit: int | None = None, square: int = 48,
              step: int = 8, fill=0.0, fill_words: str = MEAN, batch: int = 32, progress: bool = True) -> Occlusion:
    """Cover a square of the image x (H, W, C) at every position.

    label: default the most probable class.   layer: with rows and columns, by default the last one.   unit: its map; by
    default the one with the largest activation.   square, step: pixels.   fill: what covers, in the network's input: a
    number or an array that broadcasts to x; fill_words: the same for the caption.
    """
    layer, (height, width) = last_map(net) if layer is None else layer, x.shape[:2]
    if len(shape := check_unit(net, layer, unit)) != 3:
        raise ConfigError(f"occlusion shows a map, and layer {layer!r} has the shape {shape}; the nearest one with "
                          f"rows and columns is {last_map(net)!r}")
    if not 1 <= square <= min(height, width) or step < 1:
        raise ConfigError(f"a square of {square} pixels, moved by {step}, does not fit an image of {height} x {width}; "
                          f"expected a square of 1 to {min(height, width)}, and a step of at least 1")
    tops, lefts = (np.arange(0, side - square + 1, step) for side in (height, width))
    outputs, probabilities = answers(net, x[None], layer)
    label = int(probabilities[0].argmax()) if label is None else label
    check_unit(net, net.output, label)
    unit = int(strongest(outputs, unit)[-1][0])
    places = [(top, left) for top in tops for left in lefts]
    sums, found = np.empty(len(places)), np.empty((len(places), probabilities.shape[1]))
    done = 0
    for part in _batches(places, batch, progress):
        here = slice(done, done + len(part))
        maps, found[here] = answers(net, covered(x, part, square, fill), layer)
        sums[here], done = maps[..., unit].sum(axis=(1, 2)), done + len(part)
    grid, clean = (len(tops), len(lefts)), (float(outputs[0, ..., unit].sum()), float(probabilities[0, label]))
    return Occlusion(sums.reshape(grid), found[:, label].reshape(grid), found.argmax(axis=1).reshape(grid), tops, lefts,
                     label, layer, unit, clean, square, step,
                     f"Occlusion by a square of {square} x {square} pixels, moved by {step}, filled with {fill_words}: "
                     f"{len(places)} positions, each drawn where the centre of the square was. Map: the sum of "
                     f"{name_of(layer, unit, shape)}; without a square {clean[0]:.4g}, probability {clean[1]:.3f}.")


def covered(x, places: Sequence[tuple[int, int]], square: int, fill=0.0) -> np.ndarray:
    """The image x (H, W, C) once for each place (top, left) of the square that covers it: (n, H, W, C)."""
    images = np.repeat(x[None], len(places), axis=0)
    cover = np.broadcast_to(np.asarray(fill, x.dtype), x.shape)
    for image, (top, left) in zip(images, places, strict=True):
        where = slice(top, top + square), slice(left, left + square)
        image[where] = cover[where]
    return images


def answers(net, x, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """The layer's output (N, H, W, C), and the probabilities of the classes (N, K)."""
    logits = np.asarray(net.ops.to_host(net.forward(x, keep=layer)), np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return net.ops.to_host(net.activation(layer)), exponentials / exponentials.sum(axis=1, keepdims=True)


def _batches(places: list, batch: int, progress: bool):
    """Parts of the positions, with a progress bar."""
    from tqdm import tqdm

    with tqdm(total=len(places), desc="occlusion", unit=" positions", leave=False, dynamic_ncols=True,
              disable=not (progress and is_terminal())) as bar:
        for start in range(0, len(places), batch):
            yield (part := places[start:start + batch])
            bar.update(len(part))
