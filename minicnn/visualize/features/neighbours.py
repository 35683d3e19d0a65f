"""The images that a network finds most similar, as in Figure 4 (right) of the AlexNet paper.

Distances are Euclidean, between the features of the last hidden layer (fc7 after its ReLU). The images of the set are
streamed: only the nearest are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.visualize.features.layers import features_layer
from minicnn.visualize.top import stream
from minicnn.visualize.units import check_unit

COUNT = 6                                               # for each photograph, in Figure 4


@dataclass(frozen=True)
class Neighbours:
    """Of Q photographs: distances and images (indices in the set), (Q, count), the nearest first.   seen: images of the
    set.   caption: what was computed."""

    layer: str
    distances: np.ndarray
    images: np.ndarray
    seen: int
    caption: str


def nearest(net, pipeline: InputPipeline, x, dataset: Dataset, layer: str | None = None, *, count: int = COUNT,
            batch: int = 32, progress: bool = True) -> Neighbours:
    """The `count` images of the set whose features are nearest to those of the network inputs x (Q, H, W, C).

    layer: by default what the output layer reads. Of equal distances, the earlier image counts as nearer.
    """
    layer = features_layer(net) if layer is None else layer
    shape = check_unit(net, layer, None)
    wanted, seen = features(net, x, layer), 0
    distances, images = np.empty((len(wanted), 0)), np.empty((len(wanted), 0), np.int64)
    for indices, inputs in stream(pipeline, dataset, batch, progress, "nearest images"):
        here = features(net, inputs, layer)
        far = np.stack([np.linalg.norm(here - one, axis=1) for one in wanted])                  # (Q, n)
        distances = np.concatenate([distances, far], axis=1)
        images = np.concatenate([images, np.broadcast_to(indices, far.shape)], axis=1)
        kept = np.argsort(distances, axis=1, kind="stable")[:, :count]
        distances, images = (np.take_along_axis(values, kept, 1) for values in (distances, images))
        seen += len(here)
    return Neighbours(layer, distances, images, seen,
                      f"The nearest of {seen:,} images of {dataset.name}, by the Euclidean distance of the "
                      f"{np.prod(shape):,} activations of {layer} (central crops).")


def features(net, x, layer: str) -> np.ndarray:
    """The layer's activations as vectors, float64 (N, F)."""
    net.forward(x, keep=layer)
    outputs = net.ops.to_host(net.activation(layer))
    return outputs.reshape(len(outputs), -1).astype(np.float64)
