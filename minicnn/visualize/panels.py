"""Pictures of what a network responds to: rows of panels, a caption under each row that says what was computed."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minicnn.visualize.style import BLUE, GREEN, INK, LINE, ORANGE, QUIET, WIDTH, new_figure, save_png

MARGIN, GAP, LINE_HEIGHT, CAPTION_WIDTH = 0.42, 0.2, 0.19, 122          # inches, and characters
LARGEST = 4.0                                                           # inches: side of a panel
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")       # of classes


@dataclass(frozen=True)
class Panel:
    """image: (h, w, 3), uint8 or 0..1; or a list of them for a mosaic.   label: below it, a few words.

    heat: (P, Q) values in colours instead, `limits` of which are the darkest and the brightest; over `image`, if given.
    box: (top, left, bottom, right), a frame.   legend: (colour, words) below.   place: ((top, left, bottom, right),
    (h, w)), where in an image of this size the picture lies; its surroundings are white.
    """

    image: np.ndarray | list[np.ndarray] | None
    label: str
    heat: np.ndarray | None = None
    limits: tuple[float, float] | None = None
    box: tuple[int, int, int, int] | None = None
    legend: list[tuple[str, str]] = field(default_factory=list)
    place: tuple[tuple[int, int, int, int], tuple[int, int]] | None = None


def draw_panels(rows: Sequence[tuple[Sequence[Panel], str]], path: str | os.PathLike, title: str) -> Path:
    """Draw rows of (panels, caption)."""
    count = max(len(panels) for panels, _ in rows)
    side = min(LARGEST, (WIDTH - 2 * MARGIN - (count - 1) * GAP) / count)
    captions = [textwrap.wrap(caption, CAPTION_WIDTH) for _, caption in rows]
    labels = [[textwrap.wrap(panel.label, int(side * 15.5)) for panel in panels] for panels, _ in rows]
    below = [LINE_HEIGHT * max(len(label) + (len(panel.legend) + 1) // 2
                               for label, panel in zip(lines, panels, strict=True)) + 0.12
             for lines, (panels, _) in zip(labels, rows, strict=True)]
    talls = [side * max(map(_relative_height, panels)) for panels, _ in rows]
    heights = [tall + under + LINE_HEIGHT * len(caption) + 0.3
               for tall, under, caption in zip(talls, below, captions, strict=True)]
    height = 0.55 + sum(heights)
    figure = new_figure(height)
    figure.text(MARGIN / WIDTH, 1 - 0.32 / height, title, fontsize=11.5, color=INK, weight="bold")
    y = height - 0.55
    for (panels, _), caption, lines, tall, under, whole in zip(rows, captions, labels, talls, below, heights,
                                                               strict=True):
        for n, panel in enumerate(panels):
            left = MARGIN + n * (side + GAP)
            axes = figure.add_axes((left / WIDTH, (y - tall) / height, side / WIDTH, tall / height))
            _draw(axes, panel)
            _words(figure, panel, lines[n], left / WIDTH, y - tall - 0.16, height)
        for number, line in enumerate(caption):
            figure.text(MARGIN / WIDTH, (y - tall - under - 0.16 - LINE_HEIGHT * number) / height, line, fontsize=9,
                        color=QUIET)
        y -= whole
    return save_png(figure, path)


def _relative_height(panel: Panel) -> float:
    """Height of the panel, in its width: that of a mosaic is as its rows need, others are square."""
    if not isinstance(panel.image, list):
        return 1
    columns = _columns(len(panel.image))
    return -(-len(panel.image) // columns) / columns


def _draw(axes, panel: Panel) -> None:
    from matplotlib.patches import Rectangle

    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=LINE, linewidth=0.8)
    image = mosaic(panel.image) if isinstance(panel.image, list) else panel.image
    extent = None
    if panel.place is not None:
        (top, left, bottom, right), (height, width) = panel.place
        extent = (left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)
    if image is not None:
        small = isinstance(panel.image, list) or extent is not None
        axes.imshow(image, interpolation="nearest" if small else "lanczos", extent=extent)
    if panel.heat is not None:
        low, high = panel.limits or (float(panel.heat.min()), float(panel.heat.max()))
        extent = extent if image is None else (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        axes.imshow(panel.heat, cmap="viridis" if low >= 0 else "RdBu_r", vmin=low, vmax=high, extent=extent,
                    alpha=None if image is None else 0.6, interpolation="nearest" if image is None else "bilinear")
    if panel.place is not None:
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if panel.box is not None:
        top, left, bottom, right = panel.box
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=ORANGE,
                                 linewidth=1.8))


def _words(figure, panel: Panel, lines: list[str], left: float, y: float, height: float) -> None:
    """The label, and below it the legend in two columns; y in inches."""
    for number, line in enumerate(lines):
        figure.text(left, (y - LINE_HEIGHT * number) / height, line, fontsize=9, color=INK)
    y -= LINE_HEIGHT * len(lines)
    for number, (colour, words) in enumerate(panel.legend):
        column = left + number % 2 * 1.25 / WIDTH
        where = (y - LINE_HEIGHT * (number // 2)) / height
        figure.text(column, where, "\N{BLACK SQUARE}", fontsize=9, color=colour)
        figure.text(column + 0.16 / WIDTH, where, textwrap.shorten(words, 16, placeholder="..."), fontsize=9, color=INK)


def mosaic(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images (h, w, 3) of up to one size, uint8 or 0..1, as a square, the last rows of which may be missing, on white;
    smaller ones are in the middle of their cells. 0..1.
    """
    images = [image / 255 if image.dtype == np.uint8 else image for image in images]
    columns = _columns(len(images))
    rows = -(-len(images) // columns)
    cell = max(max(image.shape[:2]) for image in images)
    gap = max(1, cell // 24)
    sheet = np.ones((rows * (cell + gap) - gap, columns * (cell + gap) - gap, 3))
    for number, image in enumerate(images):
        h, w, _ = image.shape
        top, left = (place * (cell + gap) + (cell - side) // 2
                     for place, side in zip(divmod(number, columns), (h, w), strict=True))
        sheet[top:top + h, left:left + w] = image
    return sheet


def _columns(count: int) -> int:
    """Of a mosaic of so many images."""
    return int(np.ceil(count ** 0.5))


def on_grey(pixels: np.ndarray) -> np.ndarray:
    """(..., H, W, C) signed -> (..., H, W, 3) in 0..1: 0 is grey, the 99.9th percentile of |pixels| full contrast."""
    peak = np.percentile(np.abs(pixels), 99.9) or np.abs(pixels).max() or 1.0
    found = np.clip(0.5 + 0.5 * pixels / peak, 0, 1)
    return np.repeat(found, 3, axis=-1) if found.shape[-1] == 1 else found


def class_colours(best: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Class indices (P, Q) as colours (P, Q, 3), and their legend: the most frequent ones, then "others"."""
    from matplotlib.colors import to_rgb

    found, counts = np.unique(best, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    named = order if len(order) <= len(COLOURS) - 1 else order[:len(COLOURS) - 2]
    table = np.array([to_rgb(colour) for colour in COLOURS])
    where = np.full(best.shape, len(COLOURS) - 2)
    for number, label in enumerate(named):
        where[best == label] = number
    legend = [(COLOURS[number], classes[label]) for number, label in enumerate(named)]
    return table[where], legend + ([(COLOURS[-2], "others")] if len(named) < len(order) else [])
