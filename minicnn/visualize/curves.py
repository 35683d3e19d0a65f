"""curves.png: how the loss fell and the accuracy rose, from the metrics of a run.

Left the loss: every logged step as a faint line, and the means of each epoch over training and validation images. Right
the accuracy, with the line that always answering the most frequent class would reach: below it nothing has been learned.
"""

from __future__ import annotations

import os
from pathlib import Path

from minicnn.visualize.style import BLUE, INK, LINE, ORANGE, QUIET, new_figure, quiet_axes, save_png


def draw_curves(records: list[dict], path: str | os.PathLike, title: str = "", majority: float | None = None) -> Path:
    """Draw the records of metrics.jsonl (minicnn.train.metrics.read_metrics).

    majority: share of the most frequent class among the validation images, or None.
    """
    steps = [r for r in records if r["kind"] == "step"]
    epochs = [r for r in records if r["kind"] == "epoch"]
    figure = new_figure(3.9)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.965, top=0.80, bottom=0.135, wspace=0.17)
    if title:
        figure.text(0.06, 0.945, title, fontsize=11.5, color=INK, weight="bold")

    x = [r["epoch"] for r in epochs]
    few = 5 if len(epochs) <= 40 else 0
    marks = {"marker": "o", "markersize": few, "linewidth": 1.8, "clip_on": False, "zorder": 3}
    loss_axes.plot([r["epoch"] - 1 + r["step"] / r["steps"] for r in steps], [r["loss"] for r in steps],
                   color=BLUE, linewidth=0.8, alpha=0.35)
    loss_axes.plot(x, [r["train"]["loss"] for r in epochs], color=BLUE, label="training", **marks)
    loss_axes.plot(x, [r["val"]["loss"] for r in epochs], color=ORANGE, label="validation", **marks)
    loss_axes.set_title("loss (cross-entropy)", loc="left", fontsize=10, color=INK)

    percent = {name: [100 * r[name]["top1"] for r in epochs] for name in ("train", "val")}
    accuracy_axes.plot(x, percent["train"], color=BLUE, label="training, on crops and with dropout", **marks)
    accuracy_axes.plot(x, percent["val"], color=ORANGE, label="validation", **marks)
    if majority is not None:
        accuracy_axes.axhline(100 * majority, color=QUIET, linewidth=1, linestyle=(0, (4, 3)),
                              label=f"always the largest class, {100 * majority:.1f} %")
    accuracy_axes.set_title("accuracy (%)", loc="left", fontsize=10, color=INK)
    _limits(loss_axes, [r["train"]["loss"] for r in epochs] + [r["val"]["loss"] for r in epochs],
            [r["loss"] for r in steps])
    for axes in (loss_axes, accuracy_axes):
        quiet_axes(axes)
        axes.set_xlabel("epoch", fontsize=9, color=QUIET)
        _epoch_ticks(axes, max(x, default=1))
        axes.spines["bottom"].set_color(LINE)
        axes.legend(loc="best", fontsize=8.5, frameon=False, labelcolor=INK)
    return save_png(figure, path)


def _limits(axes, means: list[float], steps: list[float]) -> None:
    """From 0 to a little above the means; single steps may leave the picture (the first ones often do)."""
    steps = sorted(steps)
    high = max([*means, *steps[:int(0.98 * len(steps))]], default=1.0)
    axes.set_ylim(0, 1.08 * high)


def _epoch_ticks(axes, last: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
