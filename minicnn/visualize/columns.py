"""columns.png: the network on two ranks, drawn as in Figure 2 of the AlexNet paper, with the exchanges between them.

Each layer is a box: its height is the square root of the map size, its thickness the square root of the number of
channels. Grey arrows stay on one rank; coloured arrows go to the other, labelled with the bytes transferred.
"""

from __future__ import annotations

import os
from pathlib import Path

from minicnn.visualize.style import BLUE, INK, LINE, ORANGE, QUIET, WIDTH, new_figure, save_png

HEIGHT = 5.0                                    # inches
MIDDLE, DISTANCE = 22.5, 12.5                      # tenths of an inch: centre line, and distance of the columns from it
COLOURS = (BLUE, ORANGE)


def draw_columns(layers: list[dict], exchanges: dict[str, dict], path: str | os.PathLike, title: str = "",
                 subtitle: str = "") -> Path:
    """Draw a chain of layers on two ranks.

    layers: {"name", "shape": of one rank's shard of one image, "ranks": that have it, "shared": replicated}.
    exchanges: layer -> {"bytes": {(0, 1): forward from rank 0 to rank 1, ...}, "ms": (forward, backward) or None}, for
    the layers before which the ranks exchange activations.
    """
    figure = new_figure(HEIGHT)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 10 * WIDTH)
    axes.set_ylim(0, 10 * HEIGHT)
    axes.axis("off")
    axes.text(3, 47.2, title, fontsize=11.5, color=INK, weight="bold", va="center")
    axes.text(3, 44.2, subtitle, fontsize=8.5, color=QUIET, va="center")
    places = _places(layers, exchanges)
    for rank in (0, 1):
        axes.text(3, _y(rank) + 3 * (1 - 2 * rank), f"rank {rank}", fontsize=9.5, color=COLOURS[rank], weight="bold",
                  va="center")
    for before, layer in zip(layers, layers[1:], strict=False):
        _arrows(axes, before, layer, places, layer["name"] in exchanges)
    for layer in layers:
        for rank in (None,) if layer["shared"] else layer["ranks"]:
            _box(axes, layer, places[layer["name"]], rank)
    for before, layer in zip(layers, layers[1:], strict=False):
        if layer["name"] in exchanges:
            x = (_right(before, places) + _left(layer, places)) / 2
            _label(axes, x, exchanges[layer["name"]])
    return save_png(figure, path)


def _y(rank: int | None) -> float:
    return MIDDLE + (0 if rank is None else DISTANCE * (1 - 2 * rank))


def _size(shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Thickness, height and slant of a layer's box."""
    if len(shape) == 1:
        return 1.3, 0.21 * shape[0] ** 0.5, 0.9
    height = 0.95 * shape[0] ** 0.5
    return 0.36 * shape[2] ** 0.5, height, 0.34 * height


def _places(layers: list[dict], exchanges: dict) -> dict[str, float]:
    """The horizontal centre of every layer: evenly spaced, with more room for labels."""
    gaps = [2.0]
    for layer in layers[1:]:
        gaps.append(8.4 if layer["name"] in exchanges else 3.6)
    widths = [_size(layer["shape"])[0] + _size(layer["shape"])[2] for layer in layers]
    stretch = (10 * WIDTH - 7 - sum(widths)) / sum(gaps)
    places, x = {}, 2.5
    for layer, gap, width in zip(layers, gaps, widths, strict=True):
        x += gap * stretch
        places[layer["name"]] = x + _size(layer["shape"])[0] / 2
        x += width
    return places


def _right(layer: dict, places: dict) -> float:
    thickness, _, slant = _size(layer["shape"])
    return places[layer["name"]] + thickness / 2 + slant


def _left(layer: dict, places: dict) -> float:
    return places[layer["name"]] - _size(layer["shape"])[0] / 2


def _box(axes, layer: dict, x: float, rank: int | None) -> None:
    """A box in three faces, with name and shape below."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Polygon

    thickness, height, slant = _size(layer["shape"])
    up = 0.62 * slant
    left, right, bottom, top = x - thickness / 2, x + thickness / 2, _y(rank) - height / 2, _y(rank) + height / 2
    colour = to_rgb(QUIET if rank is None else COLOURS[rank])
    faces = ((0.80, [(left, bottom), (right, bottom), (right, top), (left, top)]),
             (0.90, [(left, top), (right, top), (right + slant, top + up), (left + slant, top + up)]),
             (0.64, [(right, bottom), (right + slant, bottom + up), (right + slant, top + up), (right, top)]))
    for light, corners in faces:
        fill = tuple(light + (1 - light) * part for part in colour)
        axes.add_patch(Polygon(corners, closed=True, facecolor=fill, edgecolor=colour, linewidth=0.8, zorder=3,
                               joinstyle="round"))
    under = _y(rank) - max(height / 2, 2.4)
    axes.text(x + slant / 2, under - 1.5, layer["name"], fontsize=8, color=INK, ha="center", va="center", zorder=4)
    axes.text(x + slant / 2, under - 3.3, "×".join(map(str, layer["shape"])), fontsize=6.8, color=QUIET, ha="center",
              va="center", zorder=4)


def _arrows(axes, before: dict, layer: dict, places: dict, crosses: bool) -> None:
    """The inputs of a layer: from its own rank in grey, from the other in that rank's colour."""
    for to in layer["ranks"]:
        for of in (None,) if before["shared"] else before["ranks"]:
            if of is None or of == to or crosses:
                start = (_right(before, places) + 0.4, _y(of))
                end = (_left(layer, places) - 0.4, _y(to))
                own = of is None or of == to
                axes.annotate("", end, start, zorder=2, arrowprops={
                    "arrowstyle": "-|>,head_length=0.35,head_width=0.17", "shrinkA": 0, "shrinkB": 0,
                    "color": "#9aa4ae" if own else COLOURS[of], "linewidth": 1.0 if own else 1.6,
                    "alpha": 1.0 if own else 0.85})


def _label(axes, x: float, exchange: dict) -> None:
    """Bytes and milliseconds of an exchange."""
    crossing = exchange["bytes"]
    counts = sorted(set(crossing.values()))
    ways = "each way" if len(crossing) == 2 else "rank {} to rank {}".format(*next(iter(crossing)))
    lines = [f"{counts[-1]:,}", "bytes", ways]
    if exchange.get("ms"):
        lines += ["{:.1f} + {:.1f} ms".format(*exchange["ms"])]
    axes.text(x, MIDDLE, "\n".join(lines[:1]), fontsize=7.6, color=INK, weight="bold", ha="center", va="bottom",
              zorder=6)
    axes.text(x, MIDDLE - 0.3, "\n".join(lines[1:]), fontsize=6.6, color=QUIET, ha="center", va="top", zorder=6,
              linespacing=1.25)
    from matplotlib.patches import FancyBboxPatch

    low = MIDDLE - 0.8 - 1.45 * (len(lines) - 1)
    axes.add_patch(FancyBboxPatch((x - 4.0, low), 8.0, MIDDLE + 2.1 - low, boxstyle="round,pad=0.25,rounding_size=0.9",
                                  facecolor="white", edgecolor=LINE, linewidth=0.8, zorder=5))
