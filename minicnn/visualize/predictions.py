"""predictions.png: photographs that the net was not trained on, and what it makes of them, as in the paper's Figure 4.

Under each photograph is its true class, and under that a bar for each of the (at most five) most probable classes;
the bar of the true class is green. A tick or a cross says whether the highest bar is the true one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.visualize.style import GREEN, INK, QUIET, RED, WIDTH, new_figure, save_png

COLUMNS, MARGIN, GAP, BAR = 4, 0.42, 0.24, 0.23          # photographs in a row, then inches


def draw_predictions(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str],
                     path: str | os.PathLike, title: str = "", caption: str = "") -> Path:
    """images uint8 (N, A, B, 3); labels (N,); probabilities (N, K); classes: K names."""
    bars = min(5, probabilities.shape[1])
    rows = -(-len(images) // COLUMNS)
    photo = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    cell = photo + 0.36 + bars * BAR + 0.26
    top, bottom = (0.58 if title else 0.2), (0.40 if caption else 0.15)
    height = top + rows * cell + bottom - 0.2
    figure = new_figure(height)
    if title:
        figure.text(MARGIN / WIDTH, 1 - 0.34 / height, title, fontsize=11.5, color=INK, weight="bold")
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = MARGIN + n % COLUMNS * (photo + GAP)
        y = height - top - n // COLUMNS * cell - photo
        order = np.argsort(-probabilities[n], kind="stable")[:bars]
        right = order[0] == label
        axes = figure.add_axes((left / WIDTH, y / height, photo / WIDTH, photo / height))
        axes.imshow(image, interpolation="lanczos", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=GREEN if right else RED, linewidth=2.2)
        mark = "\N{CHECK MARK}" if right else "\N{BALLOT X}"
        name = _short(classes[label], 20)
        figure.text(left / WIDTH, (y - 0.25) / height, name, fontsize=10, color=INK, weight="bold")
        figure.text((left + photo) / WIDTH, (y - 0.25) / height, mark, fontsize=13, ha="right",
                    color=GREEN if right else RED, weight="bold")
        y -= 0.36 + bars * BAR
        axes = figure.add_axes((left / WIDTH, y / height, photo / WIDTH, bars * BAR / height))
        _bars(axes, probabilities[n, order], [classes[k] for k in order], order == label)
    if caption:
        figure.text(MARGIN / WIDTH, 0.16 / height, caption, fontsize=9, color=QUIET)
    return save_png(figure, path)


def _bars(axes, values: np.ndarray, names: list[str], true: np.ndarray) -> None:
    """Horizontal bars over the full width, the most probable on top, with name and percentage written on them."""
    places = np.arange(len(values))[::-1]
    axes.barh(places, 1.0, height=0.82, color="#f3f4f6")
    axes.barh(places, values, height=0.82, color=["#7fc8a9" if t else "#b9c3ce" for t in true])
    for place, value, name in zip(places, values, names, strict=True):
        axes.text(0.02, place, _short(name, 22), va="center", fontsize=8.5, color=INK)
        axes.text(0.98, place, f"{100 * value:.0f} %", va="center", ha="right", fontsize=8.5, color=INK)
    axes.set(xlim=(0, 1), ylim=(-0.5, len(values) - 0.5))
    axes.set_axis_off()


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length - 1] + "\N{HORIZONTAL ELLIPSIS}"
