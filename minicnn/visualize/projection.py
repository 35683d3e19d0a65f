"""One activation projected to the pixels: deconvnet, guided backpropagation, or activation times gradient.

    forward -> all activations of the layer are set to 0 but one, which keeps its value a -> down by the rules -> pixels

Nothing but Net.trace and Net.backward(start=, rules=), so it works for any graph: a Concat hands each branch its
channels, an Add hands R to all its inputs, and where branches fork the network sums what they return. Deconvnet and
guided backpropagation mostly recover edges of the image and depend little on the class (Nie, Zhang and Patel, ICML
2018): compare with a network whose top layers are newly initialised before concluding anything from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.visualize.rules import RULES, rules_for, usual_lrn, words
from minicnn.visualize.units import Box, check_unit, field_words, name_of, receptive_field, strongest


@dataclass(frozen=True)
class Projection:
    """Of one unit per image.

    pixels: (N, H, W, C), what arrived at the image.   units (N,), positions (N, 2): which; the position of a layer
    without rows and columns is (0, 0).   values (N,): the activation a from which each began.   boxes: the receptive
    fields.   captions: what was computed, one per image.
    """

    pixels: np.ndarray
    units: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    boxes: list[Box]
    captions: list[str]


def project(net, x, layer: str, unit=None, position=None, *, rule: str = "deconvnet",
            lrn: str | None = None) -> Projection:
    """Project one activation per image of x (N, H, W, C) to the pixels.

    layer: whose output; of a layer before its ReLU, the value before it.   unit: the channel, or one per image (N,);
    None: the one with the largest activation.   position: (row, column) in its map, or (N, 2); None: that of the
    largest activation.   rule: "deconvnet", "guided" or "backprop", which gives a times the gradient.   lrn: what
    local response normalisation passes, "identity" or "gradient"; see minicnn/visualize/rules.py. Gradients in
    net.params are overwritten. ConfigError for a layer, unit, position or rule that does not exist.
    """
    lrn = usual_lrn(rule) if lrn is None else lrn
    rules, units = rules_for(rule, lrn), [] if unit is None else np.atleast_1d(unit)
    shape = check_unit(net, layer, None)
    for one in units:
        check_unit(net, layer, int(one))
    outputs = net.ops.to_host(net.trace(x, keep=layer)[layer])
    index = tuple(strongest(outputs, unit, position))
    start = np.zeros_like(outputs)
    start[index] = values = outputs[index]
    pixels = net.ops.to_host(net.backward(net.ops.from_host(start), start=layer, rules=rules, input_grad=True))
    found, positions = index[-1], np.stack(index[1:3] if len(shape) == 3 else [0 * index[0]] * 2, axis=1)
    boxes = [receptive_field(net, layer, (int(i), int(j))) for i, j in positions]
    how = f"{RULES[rule]}: {words(net, rule, lrn)}"
    captions = [f"{name_of(layer, int(k), shape)}{_at(shape, place)}, activation {a:.4g}; all others 0. {how}. "
                f"{field_words(box, net.input_shape).capitalize()}."
                for k, place, a, box in zip(found, positions.tolist(), values, boxes, strict=True)]
    return Projection(pixels, found, positions, values, boxes, captions)


def _at(shape: tuple[int, ...], place: list[int]) -> str:
    return f", row {place[0]}, column {place[1]} of {shape[0]} x {shape[1]}" if len(shape) == 3 else ""
