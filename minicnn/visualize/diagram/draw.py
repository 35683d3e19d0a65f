"""A network as SVG or PNG: boxes as in Figure 2 of the AlexNet paper, their sides to the scale of the square root of
rows and channels, and a table beside them."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.visualize.diagram.layout import (
    LINE_HEIGHT,
    MARGIN,
    RIGHT,
    SIZE,
    SMALL,
    TITLE,
    Layout,
    Placed,
    in_millions,
    place,
    text_width,
)
from minicnn.visualize.diagram.stages import CONVOLUTION, FULL, IMAGE, OTHER, POOLING, stages_of, totals
from minicnn.visualize.style import BLUE, GREEN, INK, LINE, ORANGE, QUIET, new_figure, save_picture

COLOURS = {IMAGE: QUIET, CONVOLUTION: BLUE, FULL: ORANGE, POOLING: GREEN, OTHER: QUIET}
CAPTION = ("The height of a box is proportional to the square root of the rows of its output, its width to that of its "
           "channels. Activations, normalisations and dropout are drawn with the layer before them.")
COLUMNS = "Two boxes side by side: the two groups of a convolution, on two GPUs in the paper."
REPEATED = "Shaded: equal stages in a row, drawn and listed once, with the names of the first."
ARROW_GREY = "#9aa4ae"


def draw_net(net, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw a network to FILE.svg or FILE.png. ConfigError for another ending, or a network with several inputs."""
    if Path(path).suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"{path}: expected a name that ends in .svg or .png")
    return save_picture(figure_of(net, title), path)


def figure_of(net, title: str | None = None):
    """The figure of a network; its texts are those of the layout, in inches."""
    stages = stages_of(net)
    layout, (parameters, macs) = place(stages, top=1.0), totals(stages)
    caption = CAPTION + (f" {COLUMNS}" if any(len(placed.lefts) > 1 for placed in layout.boxes) else "")
    caption += f" {REPEATED}" if layout.shades else ""
    heading = title or net.name
    width = max(layout.width, 2 * MARGIN + 1.1 * text_width(heading, TITLE), 6.5)
    lines = textwrap.wrap(caption, int((width - 2 * MARGIN) * 16))
    height = layout.height + 0.3 + LINE_HEIGHT * len(lines)
    figure = new_figure(height)
    figure.set_size_inches(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.text(MARGIN, 0.34, heading, fontsize=TITLE, color=INK, weight="bold", va="center")
    axes.text(MARGIN, 0.58, f"{parameters:,} parameters, {in_millions(macs)} multiply-adds for an image",
              fontsize=SIZE, color=QUIET, va="center")
    _shades(axes, layout, width)
    _boxes(axes, layout)
    _table(axes, layout)
    for number, line in enumerate(lines):
        axes.text(MARGIN, layout.height + 0.2 + LINE_HEIGHT * number, line, fontsize=SIZE, color=QUIET, va="center")
    return figure


def _shades(axes, layout: Layout, width: float) -> None:
    """Behind stages that are repeated, with their number on the left."""
    from matplotlib.patches import FancyBboxPatch

    for top, bottom, times in layout.shades:
        axes.add_patch(FancyBboxPatch((0.12, top + 0.04), width - 0.24, bottom - top, facecolor="#f3f5f8",
                                      boxstyle="round,pad=0,rounding_size=0.06", edgecolor="none", zorder=0))
        axes.text(0.2, (top + bottom) / 2 + 0.04, f"\N{MULTIPLICATION SIGN}{times}", fontsize=TITLE, color=INK,
                  weight="bold", va="center")


def _boxes(axes, layout: Layout) -> None:
    for points, has_head in layout.lines:
        _line(axes, points, has_head)
    for x, y in layout.identities:
        axes.text(x, y, "identity", fontsize=SMALL, color=QUIET, va="center")
    for placed in layout.boxes:
        if placed.box.label == "+":
            _sum(axes, placed)
            continue
        for left in placed.lefts:
            cuboid(axes, left, placed.top, placed.width, placed.height, placed.slant, COLOURS[placed.box.kind])
        axes.text(placed.label_at, placed.middle, placed.box.label, fontsize=SMALL, color=QUIET, va="center", zorder=4)


def _line(axes, points: list[tuple[float, float]], has_head: bool) -> None:
    if has_head:
        head = "-|>,head_length=0.3,head_width=0.15"
        axes.annotate("", points[-1], points[0], zorder=2, arrowprops={
            "arrowstyle": head, "shrinkA": 0, "shrinkB": 0, "color": ARROW_GREY, "linewidth": 0.9})
    else:
        axes.plot(*zip(*points, strict=True), color=ARROW_GREY, linewidth=0.9, zorder=2, solid_capstyle="round")


def _sum(axes, placed: Placed) -> None:
    """A residual connection ends in a circle with a plus."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((placed.axis, placed.middle), placed.height / 2, facecolor="white", edgecolor=QUIET,
                          linewidth=0.9, zorder=3))
    arm = 0.28 * placed.height
    for dx, dy in ((arm, 0), (0, arm)):
        axes.plot([placed.axis - dx, placed.axis + dx], [placed.middle - dy, placed.middle + dy], color=QUIET,
                  linewidth=1.1, zorder=4)


def cuboid(axes, left: float, top: float, width: float, height: float, slant: float, colour: str) -> None:
    """A box in three faces; y grows downwards."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Polygon

    from minicnn.visualize.diagram.layout import RISE

    right, bottom, up = left + width, top + height, RISE * slant
    faces = ((0.80, [(left, bottom), (right, bottom), (right, top), (left, top)]),
             (0.90, [(left, top), (right, top), (right + slant, top - up), (left + slant, top - up)]),
             (0.64, [(right, bottom), (right + slant, bottom - up), (right + slant, top - up), (right, top)]))
    for light, corners in faces:
        fill = tuple(light + (1 - light) * part for part in to_rgb(colour))
        axes.add_patch(Polygon(corners, closed=True, facecolor=fill, edgecolor=colour, linewidth=0.7, zorder=3,
                               joinstyle="round"))


def _table(axes, layout: Layout) -> None:
    for number, (y, cells) in enumerate(layout.rows):
        for column, (x, text) in enumerate(zip(layout.columns, cells, strict=True)):
            if text:
                axes.text(x, y, text, fontsize=SIZE, va="center", ha="right" if RIGHT[column] else "left",
                          color=QUIET if number == 0 or column == 1 else INK)
    axes.plot([layout.columns[0], layout.columns[-1]], [layout.rows[0][0] + 0.13] * 2, color=LINE, linewidth=0.8)
