"""Whether a network relates the same part in several photographs, as in Table 1 of Zeiler and Fergus.

The part, such as the left eye, is covered in each photograph i, and the change of the features noted:

    e_i = f(x_i) - f(x_i with the part covered)        H_ij = share of the elements in which sign(e_i) != sign(e_j)

A small mean of H over all pairs says that covering this part changes the features alike. The control covers parts of
the same sizes at random places. The paper gives neither how its H is normalised nor what its +- is of; here H is a
share, and +- the standard deviation over the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError
from minicnn.visualize.features.layers import features_layer
from minicnn.visualize.gradients import last_map
from minicnn.visualize.occlusion import MEAN
from minicnn.visualize.units import Box, check_unit


@dataclass(frozen=True)
class Correspondence:
    """part, random: layer -> (mean, standard deviation) of H over the pairs.   boxes: covered, one per photograph.
    caption: what was computed."""

    part: dict[str, tuple[float, float]]
    random: dict[str, tuple[float, float]]
    boxes: list[Box]
    caption: str


def correspondence(net, x, boxes: Sequence[Box], *, layers: Sequence[str] | None = None, fill=0.0,
                   fill_words: str = MEAN, draws: int = 10, seed: int = 0) -> Correspondence:
    """The consistency of the change for network inputs x (N, H, W, C) with these boxes covered, one per photograph.

    boxes: (top, left, bottom, right), the last two excluded.   layers: by default the last with rows and columns, and
    what the output layer reads.   fill: what covers, in the network's input.   draws: random boxes per photograph.
    """
    layers = list(dict.fromkeys(layers or (last_map(net), features_layer(net))))
    for layer in layers:
        check_unit(net, layer, None)
    if len(x) < 2 or len(boxes) != len(x):
        raise ConfigError(f"correspondence compares at least two photographs, each with a box of its own; got {len(x)} "
                          f"photographs and {len(boxes)} boxes")
    for box in boxes:
        check_box(box, x.shape[1:3])
    clean, rng = _outputs(net, x, layers), np.random.default_rng(seed)
    part = _mean_and_spread([_differences(net, x, clean, boxes, layers, fill)])
    control = _mean_and_spread([_differences(net, x, clean, [elsewhere(box, x.shape[1:3], rng) for box in boxes],
                                             layers, fill) for _ in range(draws)])
    pairs = len(x) * (len(x) - 1) // 2
    return Correspondence(part, control, list(boxes),
                          f"The boxes were filled with {fill_words}. H: share of a layer's elements whose change has "
                          f"another sign (-, 0, +) in the other photograph; mean and standard deviation over the "
                          f"{pairs} pairs; for boxes of these sizes at random places, over {draws} draws.")


def check_box(box: Box, size: tuple[int, int]) -> None:
    """ConfigError for a box that does not lie within an image of this size."""
    top, left, bottom, right = box
    if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
        raise ConfigError(f"a box of {bottom - top} x {right - left} pixels at row {top}, column {left} does not lie "
                          f"within the image that the network takes, {size[0]} x {size[1]}")


def elsewhere(box: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box of the same size at a random place."""
    height, width = box[2] - box[0], box[3] - box[1]
    top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    return top, left, top + height, left + width


def _differences(net, x, clean: dict, boxes: Sequence[Box], layers: list[str], fill) -> dict[str, list[float]]:
    """Layer -> H of every pair of photographs."""
    covered, cover = x.copy(), np.broadcast_to(np.asarray(fill, x.dtype), x.shape[1:])
    for image, (top, left, bottom, right) in zip(covered, boxes, strict=True):
        image[top:bottom, left:right] = cover[top:bottom, left:right]
    outputs, found = _outputs(net, covered, layers), {}
    for layer in layers:
        signs = np.sign(clean[layer] - outputs[layer])
        found[layer] = [float(np.mean(signs[i] != signs[j])) for i in range(len(x)) for j in range(i)]
    return found


def _outputs(net, x, layers: list[str]) -> dict[str, np.ndarray]:
    net.forward(x, keep=layers)
    return {layer: np.array(net.ops.to_host(net.activation(layer))).reshape(len(x), -1) for layer in layers}


def _mean_and_spread(draws: list[dict[str, list[float]]]) -> dict[str, tuple[float, float]]:
    pooled = {layer: [value for draw in draws for value in draw[layer]] for layer in draws[0]}
    return {layer: (float(np.mean(values)), float(np.std(values))) for layer, values in pooled.items()}
