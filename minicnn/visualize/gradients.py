"""What a class score depends on: saliency, integrated gradients and Grad-CAM, for any network.

    saliency               M[i, j] = max over c of |dS / dI[i, j, c]|            Simonyan, Vedaldi and Zisserman, 2014
    integrated gradients   (I - B) * mean of dS/dI along the line from B to I    Sundararajan, Taly and Yan, ICML 2017
    Grad-CAM               max(0, sum over k of mean(dS/dA_k) * A_k)             Selvaraju et al., ICCV 2017

S is the score of the class before the softmax, A_k the maps of a layer, B a baseline image. Gradients in net.params are
overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError, ShapeError
from minicnn.visualize.units import check_unit, output_shape, prediction_plan


@dataclass(frozen=True)
class ClassMap:
    """maps: (N, H, W), of the image's size; Grad-CAM's are of its layer's.   labels (N,): the classes.   scores (N,):
    S of each.   caption: what was computed, without the class."""

    maps: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    caption: str


def saliency(net, x, labels=None) -> ClassMap:
    """The largest absolute gradient of a class score over the channels of each pixel, for x (N, H, W, C).

    labels: a class, or one per image; None: the class with the largest score.
    """
    gradients, labels, scores = score_gradients(net, x, labels)
    return ClassMap(np.abs(gradients).max(axis=-1), labels, scores,
                    "saliency: largest absolute gradient of the class score (before softmax) over the colour channels")


def integrated_gradients(net, x, labels=None, *, baseline=0.0, steps: int = 64) -> ClassMap:
    """The share of each pixel, summed over its channels, in S(x) - S(baseline), for a NumPy array x (N, H, W, C).

    baseline: an image (H, W, C), or a number; 0 is the training set's mean where preprocessing subtracts it.   steps:
    gradients along the line, each in the middle of its part.
    """
    if steps < 1:
        raise ConfigError(f"integrated gradients need at least one step, got {steps}")
    start = np.broadcast_to(np.asarray(baseline, net.dtype), x.shape)
    _, labels, scores = score_gradients(net, x, labels)
    total = np.zeros(x.shape, np.float64)
    for step in range(steps):
        total += score_gradients(net, start + (x - start) * np.dtype(net.dtype).type((step + 0.5) / steps), labels)[0]
    maps = ((x - start) * total / steps).sum(axis=-1)
    from_baseline = _scores(net, np.ascontiguousarray(start))[np.arange(len(x)), labels]
    gap = np.abs(maps.sum(axis=(1, 2)) - (scores - from_baseline)).max()
    return ClassMap(maps, labels, scores, f"integrated gradients of the class score (before softmax): {steps} steps "
                    f"from {_baseline_words(baseline)}, summed over the colour channels; the sum over all pixels "
                    f"differs from S(image) - S(baseline) by at most {gap:.2g}")


def grad_cam(net, x, labels=None, *, layer: str | None = None) -> ClassMap:
    """The maps of a layer, weighted by the mean gradient of a class score, where the sum is positive: (N, P, Q).

    layer: with rows and columns; by default the last such layer.
    """
    layer = last_map(net) if layer is None else layer
    if len(shape := check_unit(net, layer, None)) != 3:
        raise ConfigError(f"Grad-CAM needs a layer with rows and columns, and {layer!r} has the shape {shape}; the "
                          f"nearest one is {last_map(net)!r}")
    outputs = net.trace(x, keep=(layer, net.output))
    maps, logits = net.ops.to_host(outputs[layer]), net.ops.to_host(outputs[net.output])
    labels = _labels(net, logits, labels)
    gradient = net.ops.to_host(net.backward(_one_per_image(net, logits, labels), start=net.output, wrt=layer)[layer])
    weighted = (maps * gradient.mean(axis=(1, 2), keepdims=True)).sum(axis=-1)                     # (N, P, Q)
    return ClassMap(np.maximum(weighted, 0), labels, logits[np.arange(len(logits)), labels],
                    f"Grad-CAM of {layer}: its {shape[2]} maps of {shape[0]} x {shape[1]}, weighted by the mean "
                    "gradient of the class score (before softmax); the positive part")


def last_map(net) -> str:
    """The last layer of the prediction whose output has rows and columns, more than one of either if there is such."""
    plan = prediction_plan(net)
    shapes = {node.name: plan.values[plan.where[node.name]].shape for node in net.nodes if node.name in plan.where}
    maps = [name for name, shape in shapes.items() if len(shape) == 4]
    if not maps:
        raise ConfigError(f"network {net.name!r} has no layer with rows and columns")
    return next((name for name in reversed(maps) if shapes[name][1:3] != (1, 1)), maps[-1])


def score_gradients(net, x, labels=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gradients of the class scores with respect to x, the classes (N,), the scores (N,)), on the host."""
    output_shape(net, net.output)
    logits = net.ops.to_host(net.trace(x, keep=net.output)[net.output])
    labels = _labels(net, logits, labels)
    gradients = net.backward(_one_per_image(net, logits, labels), start=net.output, input_grad=True)
    return net.ops.to_host(gradients), labels, logits[np.arange(len(logits)), labels]


def _scores(net, x) -> np.ndarray:
    return net.ops.to_host(net.trace(x, keep=net.output)[net.output])


def _labels(net, logits: np.ndarray, labels) -> np.ndarray:
    """The classes (N,); the best ones for None. ConfigError for one that does not exist."""
    if logits.ndim != 2:
        raise ShapeError(f"class scores (N, classes) are needed; the output {net.output!r} is {logits.shape}")
    if labels is None:
        return logits.argmax(axis=1)
    labels = np.broadcast_to(labels, len(logits))
    for label in labels.tolist():
        check_unit(net, net.output, label)
    return labels


def _one_per_image(net, logits: np.ndarray, labels: np.ndarray):
    """1 at the class of each image, else 0: the gradient of the sum of their scores."""
    chosen = np.zeros_like(logits)
    chosen[np.arange(len(logits)), labels] = 1
    return net.ops.from_host(chosen)


def _baseline_words(baseline) -> str:
    if np.ndim(baseline):
        return "a baseline image"
    return f"a baseline of {baseline:g}" + (" (the mean, where preprocessing subtracts it)" if baseline == 0 else "")
