"""A start that fits the images: each channel's outputs begin with mean 0 and a chosen deviation.

With random weights and biases of 1, what all images have in common outweighs what tells them apart: on 32 solar cells
the two outputs of AlexNet begin at 0.41 and vary by 0.002, and hardly a ReLU is ever crossed, so the network begins as
a linear function of the image. On a million images training finds its way out; on a few thousand it learns the
brightness and little else. So, layer after layer, from the first on,

    w[..., k] <- w[..., k] * d / sd_k           sd_k, mean_k: of channel k over some training images and all pixels
    b[k]      <- (b[k] - mean_k) * d / sd_k     d: the deviation that this layer is to begin with

and every unit is crossed by some images and not by others. The idea is that of Kraehenbuehl et al., "Data-dependent
initializations of convolutional neural networks", and of Mishkin and Matas, "All you need is a good init", both 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minicnn.errors import ConfigError

LEAST = 1e-3            # of a layer's mean deviation: a channel that varies less is not made louder than that


def calibrate(net, images: Sequence, deviations: Mapping[str, float]) -> None:
    """Rescale the layers named in `deviations` (layer -> d), in the network's order, in place.

    images: batches (N, H, W, C) as the net takes them. ConfigError for a layer that is not there or does not vary.
    """
    layers = [node.name for node in net.nodes if f"{node.name}.w" in net.params]
    if unknown := sorted(set(deviations) - set(layers)):
        raise ConfigError(f"calibrate names {unknown[0]!r}, but no layer with weights of {net.name!r} is called so; "
                          f"expected some of {', '.join(layers)}")
    for layer in layers:
        if layer in deviations:
            mean, deviation = _statistics(net, layer, images)
            if not deviation.mean() > 0:
                raise ConfigError(f"{layer} gives the same for all images and cannot be calibrated; its weights, or "
                                  "those of a layer before it, are 0")
            factor = deviations[layer] / np.maximum(deviation, LEAST * deviation.mean())
            weights, biases = net.params[f"{layer}.w"].data, net.params.get(f"{layer}.b")
            weights *= net.ops.from_host(factor.astype(net.dtype))
            if biases is not None:
                moved = (np.asarray(net.ops.to_host(biases.data), np.float64) - mean) * factor
                biases.data[...] = net.ops.from_host(moved.astype(net.dtype))


def _statistics(net, layer: str, images: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel of this layer's output, before what follows it; (K,) each, in float64."""
    count, total, squares = 0, 0.0, 0.0
    for x in images:
        net.forward(x, keep=[layer])
        y = np.asarray(net.ops.to_host(net.activation(layer)))
        y = y.reshape(-1, y.shape[-1]).astype(np.float64)
        count, total, squares = count + len(y), total + y.sum(axis=0), squares + (y * y).sum(axis=0)
    net.forget([layer])
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))
