"""A first convolution that whitens patches of the training images, and is not trained.

With the eigenvalues l_k and eigenvectors e_k of the second moments of patches, E[p p^T], p of R x S x C values, the
filters are

    e_k / sqrt(l_k + eps)   and   -e_k / sqrt(l_k + eps)          2 R S C of them, the largest l_k first

so that the outputs on the images are uncorrelated and of one size, each with its negative for the non-linearity that
follows. (Page, "How to train your ResNet 8: Bag of tricks", 2019; this form: KellerJordan/cifar10-airbench.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.errors import ConfigError
from minicnn.layers.conv import Conv2d
from minicnn.train.calibrate import change_on

WHITENED_ON = 5000      # images, or a few more: whole batches
EPS = 5e-4
TOGETHER = 128          # images whose patches are in memory at once


def whiten_on(net, layer: str, loader: Loader, pipeline: InputPipeline) -> str:
    """`whiten` on some training images, in the order of the first epoch; says in words what was done."""
    count = change_on(net, WHITENED_ON, loader, pipeline, lambda whole, images: whiten(whole, layer, images))
    return f"patches of {count} images by {layer}"


def whiten(net, layer: str, images: Sequence, eps: float = EPS) -> None:
    """Set the filters of this layer, which reads the images.   images: batches (N, H, W, C) as the net takes them.

    ConfigError unless it is a convolution of 2 R S C filters that reads the network's input.
    """
    node = next((node for node in net.nodes if node.name == layer), None)
    if node is None or type(node.layer) is not Conv2d or node.inputs != (next(iter(net.inputs)),):
        raise ConfigError(f"whiten names {layer!r}, expected a convolution of {net.name!r} that reads its images")
    weights = net.params[f"{layer}.w"].data
    R, S, C, K = weights.shape
    if K != 2 * R * S * C:
        raise ConfigError(f"whiten: layer {layer!r} has {K} filters of {R} x {S} x {C}; expected {2 * R * S * C}, one "
                          "and its negative for each of their values")
    values, vectors = np.linalg.eigh(second_moments([net.ops.to_host(x) for x in images], (R, S)))
    filters = (vectors / np.sqrt(values + eps))[:, ::-1].reshape(R, S, C, -1)
    weights[...] = net.ops.from_host(np.concatenate([filters, -filters], axis=-1).astype(net.dtype))


def second_moments(images: Sequence[np.ndarray], window: tuple[int, int]) -> np.ndarray:
    """E[p p^T] over all patches of these images (N, H, W, C), in the order (R, S, C): float64 (R S C, R S C)."""
    count, total = 0, 0.0
    for batch in images:
        for first in range(0, len(batch), TOGETHER):
            some = batch[first:first + TOGETHER].astype(np.float64)
            patches = np.lib.stride_tricks.sliding_window_view(some, window, axis=(1, 2))       # (N, P, Q, C, R, S)
            patches = np.moveaxis(patches, 3, 5).reshape(-1, window[0] * window[1] * some.shape[-1])
            count, total = count + len(patches), total + patches.T @ patches
    return total / count
