"""How features change when the photograph is shifted, enlarged or rotated, as in Figure 5 of Zeiler and Fergus.

For each photograph: the Euclidean distance of the features at layer 1 and at fc7 from those of the untransformed
photograph, and the probability of its class. The paper gives its ranges on the axes of the figure only; the defaults
are read off them, for images of 224 pixels.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicnn.errors import ConfigError
from minicnn.visualize.features.layers import features_layer, first_layer
from minicnn.visualize.occlusion import MEAN
from minicnn.visualize.panels import COLOURS
from minicnn.visualize.style import INK, QUIET, WIDTH, new_figure, quiet_axes, save_png
from minicnn.visualize.units import check_unit

KINDS = {"translation": "vertical translation, pixels", "scale": "scale, times", "rotation": "rotation, degrees"}


@dataclass(frozen=True)
class Invariance:
    """Of N photographs, for each kind of transformation: amounts (A,), distances {layer: (N, A)}, probability (N, A).
    caption: what was computed."""

    layers: tuple[str, str]
    amounts: dict[str, np.ndarray]
    distances: dict[str, dict[str, np.ndarray]]
    probability: dict[str, np.ndarray]
    caption: str


def usual_amounts(side: int) -> dict[str, np.ndarray]:
    """For images of this side, in pixels."""
    most = round(60 / 224 * side)
    return {"translation": np.unique(np.rint(np.linspace(-most, most, 13))), "scale": np.linspace(1, 1.8, 9),
            "rotation": np.arange(0.0, 360, 15)}


def invariance(net, x, labels: Sequence[int], *, layers: tuple[str, str] | None = None,
               amounts: Mapping[str, np.ndarray] | None = None, fill=0.0, fill_words: str = MEAN) -> Invariance:
    """Transform each network input of x (N, H, W, C), and compare its features and the probability of its label.

    layers: by default layer 1 and what the output layer reads.   amounts: kind -> values; 0 pixels, 1 times and 0
    degrees change nothing.   fill: what comes in from outside of the image.
    """
    layers = (first_layer(net), features_layer(net)) if layers is None else layers
    amounts = usual_amounts(x.shape[1]) if amounts is None else {k: np.asarray(v) for k, v in amounts.items()}
    for layer in layers:
        check_unit(net, layer, None)
    for label in labels:
        check_unit(net, net.output, int(label))
    if unknown := sorted(set(amounts) - set(KINDS)):
        raise ConfigError(f"there is no transformation {unknown[0]!r}; expected some of {', '.join(KINDS)}")
    distances = {kind: {layer: np.empty((len(x), len(values))) for layer in layers} for kind, values in amounts.items()}
    probability = {kind: np.empty((len(x), len(values))) for kind, values in amounts.items()}
    for n, (image, label) in enumerate(zip(x, labels, strict=True)):
        clean, _ = _answers(net, image[None], layers)
        for kind, values in amounts.items():
            images = np.stack([transformed(image, kind, value, fill) for value in values])
            found, chances = _answers(net, images, layers)
            for layer in layers:
                distances[kind][layer][n] = np.linalg.norm(found[layer] - clean[layer], axis=1)
            probability[kind][n] = chances[:, label]
    return Invariance(layers, dict(amounts), distances, probability,
                      f"Distance: Euclidean, of all activations of {layers[0]} and of {layers[1]} from those of the "
                      "untransformed photograph. The photograph was transformed as the network takes it, about its "
                      f"centre, with bilinear interpolation; what comes in from outside is {fill_words}.")


def transformed(image: np.ndarray, kind: str, amount: float, fill=0.0) -> np.ndarray:
    """The image (H, W, C) shifted down by `amount` pixels, enlarged `amount` times or rotated counter-clockwise by
    `amount` degrees about its centre; bilinear, `fill` outside."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
    if kind == "translation":
        down = down - amount
    elif kind == "scale":
        down, right = down / amount, right / amount
    else:
        cosine, sine = np.cos(np.deg2rad(amount)), np.sin(np.deg2rad(amount))
        down, right = cosine * down + sine * right, cosine * right - sine * down
    return _sampled(image, down + (height - 1) / 2, right + (width - 1) / 2, fill)


def _sampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill) -> np.ndarray:
    """The image at these places, bilinearly, and `fill` as far as they lie outside."""
    framed = np.pad(np.concatenate([image, np.ones_like(image[..., :1])], axis=2), ((1, 1), (1, 1), (0, 0)))
    places = [np.clip(np.round(each, 9) + 1, 0, size - 1) for each, size in zip((rows, columns), framed.shape[:2],
                                                                               strict=True)]
    top, left = (np.minimum(each.astype(int), size - 2) for each, size in zip(places, framed.shape[:2], strict=True))
    down, right = (places[0] - top)[..., None], (places[1] - left)[..., None]
    upper = framed[top, left] * (1 - right) + framed[top, left + 1] * right
    lower = framed[top + 1, left] * (1 - right) + framed[top + 1, left + 1] * right
    found = upper * (1 - down) + lower * down
    return (found[..., :-1] + (1 - found[..., -1:]) * fill).astype(image.dtype)         # the last one: the share inside


def _answers(net, x, layers: Sequence[str], batch: int = 32) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Layer -> features (N, F), and the probabilities of the classes (N, K)."""
    found, chances = {layer: [] for layer in layers}, []
    for start in range(0, len(x), batch):
        logits = np.asarray(net.ops.to_host(net.forward(x[start:start + batch], keep=tuple(layers))), np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances.append(powers / powers.sum(axis=1, keepdims=True))
        for layer in layers:
            outputs = net.ops.to_host(net.activation(layer))
            found[layer].append(outputs.reshape(len(outputs), -1).astype(np.float64))
    return {layer: np.concatenate(parts) for layer, parts in found.items()}, np.concatenate(chances)


def draw_invariance(found: Invariance, names: Sequence[str], path: str | os.PathLike, title: str) -> Path:
    """A row for each kind of transformation; columns: both layers and the probability; a curve for each photograph."""
    lines, rows = textwrap.wrap(found.caption, 122), list(found.amounts)
    legend = 0.2 * -(-len(names) // 3)
    height = 0.75 + legend + 2.05 * len(rows) + 0.19 * len(lines)
    figure = new_figure(height)
    figure.text(0.42 / WIDTH, 1 - 0.32 / height, title, fontsize=11.5, color=INK, weight="bold")
    for n, name in enumerate(names):
        x, y = (0.42 + n % 3 * 2.8) / WIDTH, 1 - (0.58 + 0.2 * (n // 3)) / height
        figure.text(x, y, "\N{EM DASH}", fontsize=11, color=COLOURS[n % len(COLOURS)], weight="bold")
        figure.text(x + 0.24 / WIDTH, y, textwrap.shorten(name, 38, placeholder="..."), fontsize=9, color=INK)
    for row, kind in enumerate(rows):
        bottom = height - 0.5 - legend - 2.05 * (row + 1) + 0.48
        for column, values in enumerate((*found.distances[kind].values(), found.probability[kind])):
            axes = figure.add_axes(((0.8 + 2.83 * column) / WIDTH, bottom / height, 2.2 / WIDTH, 1.25 / height))
            quiet_axes(axes)
            for n, curve in enumerate(values):
                axes.plot(found.amounts[kind], curve, color=COLOURS[n % len(COLOURS)], linewidth=1.5)
            axes.set_ylim(0, 1.02 if column == 2 else None)
            axes.set_xlabel(KINDS[kind], fontsize=9, color=QUIET)
            axes.set_title([f"distance at {layer}" for layer in found.layers][column] if column < 2
                           else "probability of the class", fontsize=9, color=INK, loc="left")
    for number, line in enumerate(lines):
        figure.text(0.42 / WIDTH, (0.19 * (len(lines) - number) - 0.02) / height, line, fontsize=9, color=QUIET)
    return save_png(figure, path)
