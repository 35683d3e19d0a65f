"""One look for all pictures: sizes for the width of a README, quiet axes, colours that the colour-blind can tell apart.

Matplotlib is imported here, at the first picture, with the Agg canvas: no display is needed, no global state changes,
and MPLBACKEND, which a notebook sets for what it starts, does not matter.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from minicnn.system.files import atomic, cannot_write
from minicnn.visualize.fonts import make_legible

WIDTH = 9.0                      # inches; at DPI that is 1350 pixels, which stay sharp when shown at half the size
DPI = 150
INK, QUIET, LINE = "#24292f", "#6e7781", "#d0d7de"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#d55e00", "#00875a", "#c0392b"


def new_figure(height: float):
    """A figure WIDTH x `height` inches on its own Agg canvas (so that pyplot and its state are never touched)."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _import_matplotlib() -> None:
    """Import it, if the process has not yet; it fails where MPLBACKEND names a backend that is not installed."""
    if "matplotlib" in sys.modules:
        return
    wanted = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if wanted:
        with contextlib.suppress(ValueError):           # else what it does itself
            matplotlib.rcParams["backend"] = wanted


def quiet_axes(axes) -> None:
    """Left and bottom lines only, light grid, small ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(which="both", colors=QUIET, labelsize=9, length=0, pad=5)
    axes.grid(True, axis="y", color=LINE, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def save_png(figure, path: str | os.PathLike) -> Path:
    """Write the figure as PNG: whole, or not at all."""
    return _save(figure, path, format="png", metadata={"Software": "minicnn"})


def save_picture(figure, path: str | os.PathLike) -> Path:
    """Write the figure as FILE.svg, in which text stays text, or else as PNG; whole, or not at all."""
    if Path(path).suffix.lower() != ".svg":
        return save_png(figure, path)
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "minicnn"}):       # the same bytes each time
        return _save(figure, path, format="svg", metadata={"Creator": "minicnn", "Date": None})


def _save(figure, path: str | os.PathLike, **options) -> Path:
    path = Path(path)
    make_legible(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file, _quiet_about_fonts():
            figure.savefig(file, **options)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


@contextlib.contextmanager
def _quiet_about_fonts() -> Iterator[None]:
    """make_legible has said in one line what is missing; that a font has no bold letters is nobody's concern."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            yield
    finally:
        logger.setLevel(level)
