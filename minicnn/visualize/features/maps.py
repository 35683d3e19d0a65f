"""The activation maps of a layer for one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError
from minicnn.visualize.gradients import last_map
from minicnn.visualize.units import check_unit

SHOWN = 100


@dataclass(frozen=True)
class Maps:
    """maps: (H, W, K) of these units (K,), in order.   caption: which they are."""

    maps: np.ndarray
    units: np.ndarray
    caption: str


def activation_maps(net, x, layer: str | None = None, *, count: int = SHOWN) -> Maps:
    """The maps of a layer for the network input x (H, W, C); of more than `count`, those with the largest values."""
    layer = last_map(net) if layer is None else layer
    if len(shape := check_unit(net, layer, None)) != 3:
        raise ConfigError(f"layer {layer!r} has the shape {shape}, which is no map; the nearest layer with rows and "
                          f"columns is {last_map(net)!r}")
    net.forward(x[None], keep=layer)
    maps = net.ops.to_host(net.activation(layer))[0]
    units = np.sort(np.argsort(-maps.max(axis=(0, 1)), kind="stable")[:count])
    which = f"The {shape[2]} maps" if len(units) == shape[2] else (f"The {len(units)} of {shape[2]} maps with the "
                                                                   "largest values")
    silent = int((maps.max(axis=(0, 1)) <= 0).sum())
    return Maps(maps[..., units].copy(), units, f"{which} of {layer}, {shape[0]} x {shape[1]}, in their order, row by "
                f"row, on one scale. {silent} of all {shape[2]} have no positive value for this image.")
