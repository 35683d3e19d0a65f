"""curves.png: how the loss fell and the accuracy rose, from the metrics of a run.

Left the loss: every logged step as a faint line, and the means of each epoch over training and validation images.
Right the accuracy, with the line that always giving the most frequent answer would reach: below it, nothing is learned.
"""

from __future__ import annotations

import os
from pathlib import Path

from minicnn.visualize.style import BLUE, INK, LINE, ORANGE, QUIET, new_figure, quiet_axes, save_png


def draw_curves(records: list[dict], path: str | os.PathLike, title: str = "", majority: float | None = None,
                training: str = "training", validation: str = "validation") -> Path:
    """Draw the records of metrics.jsonl (minicnn.train.runs.metrics.read_metrics).

    majority: share of the most frequent class among the validation images, or None.   training, validation: the
    labels of these curves, whose points are means over an epoch.
    """
    steps = [r for r in records if r["kind"] == "step"]
    epochs = [r for r in records if r["kind"] == "epoch"]
    figure = new_figure(4.2)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.065, right=0.965, top=0.755, bottom=0.125, wspace=0.17)
    if title:
        figure.text(0.0465, 0.93, title, fontsize=11.5, color=INK, weight="bold")

    x = [r["epoch"] for r in epochs]
    few = 5 if len(epochs) <= 40 else 0
    marks = {"marker": "o", "markersize": few, "linewidth": 1.8, "clip_on": False, "zorder": 3}
    loss_axes.plot([r["epoch"] - 1 + r["step"] / r["steps"] for r in steps], [r["loss"] for r in steps],
                   color=BLUE, linewidth=0.8, alpha=0.35, label="training loss of single batches")
    loss_axes.plot(x, [r["train"]["loss"] for r in epochs], color=BLUE, **marks)
    loss_axes.plot(x, [r["val"]["loss"] for r in epochs], color=ORANGE, **marks)
    loss_axes.set_title("loss (cross-entropy)", loc="left", fontsize=10, color=INK)

    percent = {name: [100 * r[name]["top1"] for r in epochs] for name in ("train", "val")}
    accuracy_axes.plot(x, percent["train"], color=BLUE, label=f"{training}: mean of each epoch", **marks)
    accuracy_axes.plot(x, percent["val"], color=ORANGE, label=validation, **marks)
    if majority is not None:
        accuracy_axes.axhline(100 * majority, color=QUIET, linewidth=1, linestyle=(0, (4, 3)),
                              label=f"always the largest class, {100 * majority:.1f} %")
    low, high = accuracy_axes.get_ylim()
    accuracy_axes.set_ylim(min(low, (low + high - 10) / 2), max(high, min(100, (low + high + 10) / 2)))
    accuracy_axes.set_title("accuracy (%)", loc="left", fontsize=10, color=INK)
    _limits(loss_axes, [r["train"]["loss"] for r in epochs] + [r["val"]["loss"] for r in epochs],
            [r["loss"] for r in steps])
    handles, labels = ([*a, *b] for a, b in zip(accuracy_axes.get_legend_handles_labels(),
                                                loss_axes.get_legend_handles_labels(), strict=True))
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.035, 0.925), ncols=2,
                  fontsize=8.5, frameon=False, labelcolor=INK)
    for axes in (loss_axes, accuracy_axes):
        quiet_axes(axes)
        axes.set_xlabel("epoch", fontsize=9, color=QUIET)
        _epoch_ticks(axes, max(x, default=1))
        axes.spines["bottom"].set_color(LINE)
    return save_png(figure, path)


def _limits(axes, means: list[float], steps: list[float]) -> None:
    """All means and nearly all steps; a few may leave the picture (the first ones often do)."""
    steps = sorted(steps)
    steps = steps[int(0.01 * len(steps)):max(1, int(0.98 * len(steps)))]
    low, high = min([*means, *steps], default=0.0), max([*means, *steps], default=1.0)
    room = 0.08 * (high - low) or 0.1
    axes.set_ylim(max(0.0, low - room), high + room)


def _epoch_ticks(axes, last: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
