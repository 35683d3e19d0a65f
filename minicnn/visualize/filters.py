"""conv1.png: the kernels of the first layer, laid out as in Figure 3 of the AlexNet paper.

Six rows of sixteen 11x11x3 kernels. The upper 48 are the first group (GPU 1 in the paper), the lower 48 the second.
Each kernel is drawn on its own scale, grey being zero, so a picture of an untrained layer is coloured noise.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np

from minicnn.visualize.style import DPI, INK, QUIET, WIDTH, new_figure, save_png

COLUMNS, MARGIN, PANEL_GAP = 16, 0.42, 0.22       # kernels in a row; inches left and right; inches between groups


def draw_filters(weights: np.ndarray, path: str | os.PathLike, title: str = "", caption: str = "",
                 groups: int = 1) -> Path:
    """Draw weights (R, S, 3, K) of a convolution on colour images, K / groups kernels to a panel."""
    R, S, C, K = weights.shape
    if C not in (1, 3):
        raise ValueError(f"kernels of {C} channels cannot be drawn as colours; only a layer that sees the image can")
    kernels = np.moveaxis(np.asarray(weights, np.float64), 3, 0)                               # (K, R, S, C)
    peak = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    kernels = 0.5 + 0.5 * kernels / np.where(peak > 0, peak, 1)
    if C == 1:
        kernels = np.repeat(kernels, 3, axis=3)                                                # (K, R, S, 3)
    panels = np.split(kernels, groups)
    rows = -(-len(panels[0]) // COLUMNS)

    lines = textwrap.wrap(caption, 124)
    inner = WIDTH - 2 * MARGIN
    panel_height = inner * rows / COLUMNS * R / S
    label_height = 0.22 if groups > 1 else 0.0
    top, bottom = (0.55 if title else 0.2), 0.30 + 0.19 * len(lines)
    height = top + groups * (panel_height + label_height) + (groups - 1) * PANEL_GAP + bottom
    figure = new_figure(height)
    if title:
        figure.text(MARGIN / WIDTH, 1 - 0.32 / height, title, fontsize=11.5, color=INK, weight="bold")
    y = height - top
    for index, panel in enumerate(panels):
        if groups > 1:
            first = index * len(panel) + 1
            name = f"group {index + 1}: kernels {first} to {first + len(panel) - 1}"
            name += f" (GPU {index + 1} in the paper)" if groups == 2 else ""
            figure.text(MARGIN / WIDTH, (y - 0.13) / height, name, fontsize=9, color=QUIET)
            y -= label_height
        y -= panel_height
        axes = figure.add_axes((MARGIN / WIDTH, y / height, inner / WIDTH, panel_height / height))
        axes.imshow(_mosaic(panel, rows, scale=max(1, round(inner * DPI / COLUMNS / (S + 1)))), interpolation="nearest")
        axes.set_axis_off()
        y -= PANEL_GAP
    for number, line in enumerate(lines):
        figure.text(MARGIN / WIDTH, (bottom - 0.26 - 0.19 * number) / height, line, fontsize=9, color=INK)
    return save_png(figure, path)


def _mosaic(kernels: np.ndarray, rows: int, scale: int) -> np.ndarray:
    """The kernels (K, R, S, 3) in rows of COLUMNS on white, each pixel `scale` pixels wide."""
    K, R, S, _ = kernels.shape
    gap = max(1, scale // 2)
    cell_height, cell_width = R * scale + gap, S * scale + gap
    sheet = np.ones((rows * cell_height - gap, COLUMNS * cell_width - gap, 3))
    for k, kernel in enumerate(kernels):
        top, left = k // COLUMNS * cell_height, k % COLUMNS * cell_width
        sheet[top:top + R * scale, left:left + S * scale] = kernel.repeat(scale, axis=0).repeat(scale, axis=1)
    return sheet
