"""One look for all pictures: sizes for the width of a README, quiet axes, colours that the colour-blind can tell apart.

Matplotlib is imported here, at the first picture, with the Agg canvas: no display is needed, no global state changes.
"""

from __future__ import annotations

import os
from pathlib import Path

from minicnn.files import atomic

WIDTH = 9.0                      # inches; at DPI that is 1350 pixels, which stay sharp when shown at half the size
DPI = 150
INK, QUIET, LINE = "#24292f", "#6e7781", "#d0d7de"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#d55e00", "#00875a", "#c0392b"


def new_figure(height: float):
    """A figure WIDTH x `height` inches on its own Agg canvas (so that pyplot and its state are never touched)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def quiet_axes(axes) -> None:
    """Left and bottom lines only, light grid, small ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=9, length=0, pad=5)
    axes.grid(True, axis="y", color=LINE, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def save_png(figure, path: str | os.PathLike) -> Path:
    """Write the figure: whole, or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        figure.savefig(file, format="png", metadata={"Software": "minicnn"})
    return path
