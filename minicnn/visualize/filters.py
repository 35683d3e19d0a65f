"""conv1.png: the kernels of the first layer, laid out as in Figure 3 of the AlexNet paper.

Six rows of sixteen 11x11x3 kernels. The upper 48 are the first group (GPU 1 in the paper), the lower 48 the second.
Each kernel is drawn on its own scale, grey being zero, so an untrained layer is a picture of coloured noise. After a
short training most of that noise is still there; a second block then shows the kernels minus their initial values.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np

from minicnn.visualize.style import DPI, INK, QUIET, WIDTH, new_figure, save_png

COLUMNS, MARGIN = 16, 0.42                              # kernels in a row; inches left and right
HEADING, LABEL, GAP, LINE_HEIGHT = 0.30, 0.22, 0.16, 0.19       # inches: of a block, of a group, after a group


def draw_filters(weights: np.ndarray, path: str | os.PathLike, title: str = "", caption: str = "", groups: int = 1,
                 start: np.ndarray | None = None) -> Path:
    """Draw weights (R, S, 3, K) of a convolution on colour images, K / groups kernels to a panel.

    start: the weights before training, for the second block; or None.
    """
    R, S, C, K = weights.shape
    if C not in (1, 3):
        raise ValueError(f"kernels of {C} channels cannot be drawn as colours; only a layer that sees the image can")
    blocks = [("", weights)]
    if start is not None:
        blocks = [("The kernels", weights),
                  ("What training has changed in them: the kernels minus their initial values", weights - start)]
    lines = textwrap.wrap(caption, 124)
    inner, rows = WIDTH - 2 * MARGIN, -(-K // groups // COLUMNS)
    panel_height = inner * rows / COLUMNS * R / S
    label_height = LABEL if groups > 1 else 0.0
    top, bottom = (0.55 if title else 0.2), 0.22 + LINE_HEIGHT * len(lines)
    each = (HEADING if blocks[0][0] else 0.0) + groups * (label_height + panel_height + GAP)
    figure = new_figure(top + len(blocks) * each + bottom)
    height = figure.get_figheight()

    def text(inches_from_top: float, words: str, **style) -> None:
        figure.text(MARGIN / WIDTH, 1 - inches_from_top / height, words, **style)

    text(0.32, title, fontsize=11.5, color=INK, weight="bold")
    y = top                                             # inches from the top
    for heading, block in blocks:
        if heading:
            text(y + 0.15, heading, fontsize=10, color=INK)
            y += HEADING
        for index, panel in enumerate(np.split(kernel_colours(block), groups)):
            if groups > 1:
                first = index * len(panel) + 1
                gpu = f" (GPU {index + 1} in the paper)" if groups == 2 else ""
                text(y + 0.14, f"{first} to {first + len(panel) - 1}{gpu}", fontsize=9, color=QUIET)
                y += label_height
            axes = figure.add_axes((MARGIN / WIDTH, 1 - (y + panel_height) / height,
                                    inner / WIDTH, panel_height / height))
            scale = max(1, round(inner * DPI / COLUMNS / (S + 1)))
            axes.imshow(_mosaic(panel, rows, scale), interpolation="nearest")
            axes.set_axis_off()
            y += panel_height + GAP
    for number, line in enumerate(lines):
        text(y + 0.14 + LINE_HEIGHT * number, line, fontsize=9, color=INK)
    return save_png(figure, path)


def kernel_colours(weights: np.ndarray) -> np.ndarray:
    """(R, S, C, K) -> (K, R, S, 3) in 0..1: each kernel on its own scale, 0 being grey."""
    kernels = np.moveaxis(np.asarray(weights, np.float64), 3, 0)                               # (K, R, S, C)
    peak = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    kernels = 0.5 + 0.5 * kernels / np.where(peak > 0, peak, 1)
    return np.repeat(kernels, 3, axis=3) if kernels.shape[3] == 1 else kernels                 # (K, R, S, 3)


def _mosaic(kernels: np.ndarray, rows: int, scale: int) -> np.ndarray:
    """The kernels (K, R, S, 3) in rows of COLUMNS on white, each pixel `scale` pixels wide."""
    _, R, S, _ = kernels.shape
    gap = max(1, scale // 2)
    cell_height, cell_width = R * scale + gap, S * scale + gap
    sheet = np.ones((rows * cell_height - gap, COLUMNS * cell_width - gap, 3))
    for k, kernel in enumerate(kernels):
        top, left = k // COLUMNS * cell_height, k % COLUMNS * cell_width
        sheet[top:top + R * scale, left:left + S * scale] = kernel.repeat(scale, axis=0).repeat(scale, axis=1)
    return sheet
