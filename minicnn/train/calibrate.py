"""Data-dependent (LSUV-like) initialisation: the outputs of each channel have mean 0 and a chosen standard deviation.

With random weights and biases of 1, what all images have in common outweighs how they differ: on 32 solar cells the two
initial outputs of AlexNet are about 0.41 and vary by 0.002, and the input of hardly any ReLU changes its sign, so the
network is a linear function of the image. On a million images training overcomes that; on a few thousand it learns the
brightness and little else. So, layer after layer, from the first on,

    w[..., k] <- w[..., k] * d / sd_k           sd_k, mean_k: of channel k over some training images and all pixels
    b[k]      <- (b[k] - mean_k) * d / sd_k     d: the standard deviation wanted for this layer

and every ReLU is active for some images and not for others. The idea is that of Kraehenbuehl et al., "Data-dependent
initializations of convolutional neural networks", and of Mishkin and Matas, "All you need is a good init", both 2016.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.errors import ConfigError
from minicnn.graph import Net

CALIBRATED_ON = 128     # images, or a few more: whole batches
LEAST = 1e-3            # lower bound of a channel's std, as a share of its layer's: constant channels are not amplified


def calibrate_on(net, stds: Mapping[str, float], loader: Loader, pipeline: InputPipeline) -> str:
    """`calibrate` on some training images, in the order of the first epoch; says in words what was done."""
    count = change_on(net, CALIBRATED_ON, loader, pipeline, lambda whole, images: calibrate(whole, images, stds))
    return f"outputs of {', '.join(stds)} on {count} images"


def change_on(net, least: int, loader: Loader, pipeline: InputPipeline, change: Callable[[Net, list], None]) -> int:
    """change(network, images) on whole batches of at least so many training images; returns how many they were.

    Of several ranks, rank 0 changes the whole network, and all take their parts of it.
    """
    count = min(-(-least // loader.batch), len(loader))
    if not net.ranks.is_split:
        change(net, _images(loader, count, pipeline))
        return count * loader.batch
    arrays = net.ranks.gather(net.arrays())
    if net.ranks.is_main:
        whole = Net.from_description(net.description(), device=net.ops.spec, seed=net.seed, dtype=net.dtype,
                                     values=arrays)
        of_all_ranks = Loader(loader.dataset, loader.batch, seed=loader.seed, shuffle=loader.shuffle,
                              drop_last=loader.drop_last)
        change(whole, _images(of_all_ranks, count, pipeline))
        arrays = {name: whole.ops.to_host(array) for name, array in whole.arrays().items()}
    net.load_arrays(net.ranks.broadcast(None, arrays)[1], "the network that rank 0 has changed")
    return count * loader.batch


def _images(loader: Loader, count: int, pipeline: InputPipeline) -> list:
    """The first `count` batches of the first epoch, as the network takes them."""
    with contextlib.closing(loader.epoch(0)) as batches:
        return [pipeline.evaluation(batch).copy() for batch in itertools.islice(batches, count)]


def calibrate(net, images: Sequence, stds: Mapping[str, float]) -> None:
    """Rescale the layers named in `stds` (layer -> d), in the network's order, in place.

    images: batches (N, H, W, C) as the net takes them. ConfigError for a layer that is not there or does not vary.
    """
    layers = [node.name for node in net.nodes if f"{node.name}.w" in net.params]
    if unknown := sorted(set(stds) - set(layers)):
        raise ConfigError(f"calibrate names {unknown[0]!r}, but no layer with weights of {net.name!r} is called so; "
                          f"expected some of {', '.join(layers)}")
    for layer in layers:
        if layer in stds:
            mean, std = _statistics(net, layer, images)
            if not std.mean() > 0:
                raise ConfigError(f"{layer} gives the same for all images and cannot be calibrated; its weights, or "
                                  "those of a layer before it, are 0")
            factor = stds[layer] / np.maximum(std, LEAST * std.mean())
            weights, biases = net.params[f"{layer}.w"].data, net.params.get(f"{layer}.b")
            weights *= net.ops.from_host(factor.astype(net.dtype))
            if biases is not None:
                shifted = (np.asarray(net.ops.to_host(biases.data), np.float64) - mean) * factor
                biases.data[...] = net.ops.from_host(shifted.astype(net.dtype))


def _statistics(net, layer: str, images: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of this layer's output, before what follows it; float64 (K,) each."""
    count, total, squares = 0, 0.0, 0.0
    for x in images:
        net.forward(x, keep=[layer])
        y = np.asarray(net.ops.to_host(net.activation(layer)))
        y = y.reshape(-1, y.shape[-1]).astype(np.float64)
        count, total, squares = count + len(y), total + y.sum(axis=0), squares + (y * y).sum(axis=0)
    net.forget([layer])
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))
