"""The roofline: arithmetic rate over arithmetic intensity, a dot for each pass of each kernel, below its limit.

A kernel that computes I operations for every byte that has to cross memory can reach I times the memory's bandwidth,
and the rate of matrix products where that is less: a slope and a flat roof, both measured. Left, the kernels
under the slope or near it; right, those under the flat roof, on a linear scale. Ours is a full dot, the best of
PyTorch's settings an open ring, a line joins them. Kernels of nearly the same intensity are moved apart until they
can be distinguished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ratios import limit_of, ratios_of

from minicnn.visualize.style import BLUE, GREEN, INK, LINE, ORANGE, QUIET, new_figure, quiet_axes, save_png

PURPLE = "#8250a8"
COLOURS = {"forward": BLUE, "dx": ORANGE, "dw": GREEN, "forward + backward": PURPLE}   # of a pass; others are in INK
SPLIT = 24.0                                                # flops per byte: kernels from here on are in the right part
PASS_GAP, COLUMN_GAP, NAME_GAP = 0.085, 0.1, 0.17           # inches: within a kernel, between kernels, between names
LEFT, RIGHT, BOTTOM, HEIGHT = (0.06, 0.335), (0.445, 0.535), 0.115, 0.57    # (from, width) and height of the two parts
BEND = 0.93                                                 # of the height: where a kernel's line turns to its name
FIGURE_HEIGHT = 5.0


def draw_roofline(reports: Sequence[dict], path: str | Path) -> Path | None:
    """Draw every row that has a `dot`, of the largest number of threads; None where there is none."""
    rows = [row for report in reports for row in report["rows"] if row.get("dot") and row["gflop"] and row["gbyte"]]
    if not rows:
        return None
    threads = max(row["threads"] for row in rows)
    rows = [row for row in rows if row["threads"] == threads]
    used = [report for report in reports if str(threads) in report["limits"]]
    product, copy = (max(limit_of(report, str(threads), limit) for report in used) for limit in ("sgemm", "copy"))

    figure = new_figure(FIGURE_HEIGHT)
    title = f"{used[0]['machine']}, {threads} {'thread' if threads == 1 else 'threads'}"
    figure.text(0.02, 0.945, title, fontsize=11.5, color=INK, weight="bold")
    left = figure.add_axes((LEFT[0], BOTTOM, LEFT[1], HEIGHT))
    right = figure.add_axes((RIGHT[0], BOTTOM, RIGHT[1], HEIGHT))
    _slope(left, product, copy, [row for row in rows if _intensity(row) < SPLIT])
    _flat(right, product, [row for row in rows if _intensity(row) >= SPLIT])
    _legend(figure, rows)
    return save_png(figure, path)


def _slope(axes, product: float, copy: float, rows: list[dict]) -> None:
    """The left part: both axes logarithmic, the slope of the memory bandwidth up to the flat roof."""
    low = min([0.1, *(0.7 * _intensity(row) for row in rows)])
    ridge = product / copy
    bottom = 0.7 * min([0.7 * low * copy, *(rate for row in rows for rate in _rates(row))])
    axes.set(xscale="log", yscale="log", xlim=(low, 1.6 * SPLIT), ylim=(bottom, 2.2 * product))
    axes.plot([low, ridge, 1.6 * SPLIT], [low * copy, product, product], color=INK, linewidth=1.3, zorder=2)
    quiet_axes(axes)
    slope = math.atan2(math.log(10) * _inches(axes)[1] / math.log(2.2 * product / bottom),
                       math.log(10) * _inches(axes)[0] / math.log(1.6 * SPLIT / low))
    axes.text(0.5 * ridge, 0.56 * product, f"copy {copy:.0f} GB/s", rotation=math.degrees(slope), fontsize=8,
              color=INK, rotation_mode="anchor", ha="right", va="bottom")
    axes.set_ylabel("GFLOP/s", fontsize=9, color=QUIET)
    axes.set_xlabel("operations for each byte", fontsize=9, color=QUIET)
    axes.xaxis.set_major_formatter(_plain)
    axes.yaxis.set_major_formatter(_plain)
    axes.minorticks_off()
    _columns(axes, rows)


def _flat(axes, product: float, rows: list[dict]) -> None:
    """The right part: the rate on a linear scale, up to the matrix product's."""
    intensities = [_intensity(row) for row in rows] or [SPLIT, 1000.0]
    top = max([product, *(rate for row in rows for rate in _rates(row))])
    axes.set(xscale="log", xlim=(min(intensities) / 1.25, 1.25 * max(intensities)), ylim=(0, 1.12 * top))
    axes.axhline(product, color=INK, linewidth=1.3, zorder=2)
    quiet_axes(axes)
    axes.text(0, product, f" SGEMM {product:.0f}", transform=axes.get_yaxis_transform(), fontsize=8, color=INK,
              va="bottom")
    axes.set_xlabel("operations for each byte", fontsize=9, color=QUIET)
    axes.xaxis.set_major_locator(_ticker().FixedLocator([30, 50, 100, 200, 300, 500, 1000, 2000]))
    axes.xaxis.set_major_formatter(_plain)
    axes.xaxis.set_minor_locator(_ticker().NullLocator())
    _columns(axes, rows)


def _columns(axes, rows: list[dict]) -> None:
    """A column of dots for each kernel: its name above the picture, its passes side by side."""
    kernels: dict[str, list[dict]] = {}
    for row in rows:
        kernels.setdefault(row["dot"][0], []).append(row)
    width = _inches(axes)[0]
    low, high = (math.log(x) for x in axes.get_xlim())
    centres = {name: sum(math.log(_intensity(row)) for row in part) / len(part) for name, part in kernels.items()}
    names = sorted(kernels, key=centres.get)
    wanted = [(centres[name] - low) / (high - low) * width for name in names]
    halves = [0.5 * PASS_GAP * (len(kernels[name]) - 1) + 0.5 * COLUMN_GAP for name in names]
    positions = spread(wanted, halves, width)
    heads = spread(positions, [0.5 * NAME_GAP] * len(names), width)
    for name, position, head in zip(names, positions, heads, strict=True):
        part = kernels[name]
        axes.plot([position / width, position / width, head / width], [0, BEND, 1], transform=axes.transAxes,
                  color=LINE, linewidth=0.6, alpha=0.8, zorder=0)
        axes.annotate(name, (head / width, 1.0), xycoords="axes fraction", xytext=(1, 4), textcoords="offset points",
                      rotation=45, rotation_mode="anchor", fontsize=8, color=INK)
        for i, row in enumerate(part):
            inch = position + PASS_GAP * (i - (len(part) - 1) / 2)
            x = math.exp(low + inch / width * (high - low))
            ours, theirs = _rates(row)
            colour = COLOURS.get(row["dot"][1], INK)
            axes.plot([x, x], [ours, theirs], color=colour, linewidth=1.1, alpha=0.55, zorder=3)
            axes.plot(x, theirs, "o", markersize=4.2, markerfacecolor="white", markeredgecolor=colour, zorder=4)
            axes.plot(x, ours, "o", markersize=4.8, color=colour, zorder=5)


def spread(positions: list[float], halves: list[float], width: float) -> list[float]:
    """Ascending positions, moved as little as possible, so that each has its half width to both sides, in 0..width.

    Neighbours that touch are moved as one block about the mean of where its members wanted to be (the pool of adjacent
    violators); the blocks are then kept inside.
    """
    offsets, total = [], 0.0                                # of each position from the first, when all touch
    for i, half in enumerate(halves):
        total += half + halves[i - 1] if i else 0.0
        offsets.append(total)
    blocks: list[tuple[float, int]] = []                    # (mean of position - offset, members)
    for position, offset in zip(positions, offsets, strict=True):
        mean, count = position - offset, 1
        while blocks and blocks[-1][0] > mean:
            last, members = blocks.pop()
            mean, count = (last * members + mean * count) / (members + count), members + count
        blocks.append((mean, count))
    starts = [mean for mean, count in blocks for _ in range(count)]
    least, most = halves[0] if halves else 0.0, width - (offsets[-1] + halves[-1] if halves else 0.0)
    return [min(max(start, least), max(most, least)) + offset for start, offset in zip(starts, offsets, strict=True)]


def _legend(figure, rows: list[dict]) -> None:
    from matplotlib.lines import Line2D

    passes = list(dict.fromkeys(row["dot"][1] for row in rows))
    passes.sort(key=lambda name: list(COLOURS).index(name) if name in COLOURS else len(COLOURS))
    marks = [Line2D([], [], marker="o", linestyle="", color=INK, markersize=5, label="minicnn"),
             Line2D([], [], marker="o", linestyle="", markerfacecolor="white", markeredgecolor=INK, markersize=4.5,
                    label="PyTorch, the best of its settings")]
    marks += [Line2D([], [], color=COLOURS.get(name, INK), linewidth=3, label=name) for name in passes]
    figure.legend(handles=marks, loc="upper left", bbox_to_anchor=(0.01, 0.935), ncols=len(marks), fontsize=8.5,
                  frameon=False, labelcolor=INK, handlelength=1.2, columnspacing=1.6)


def _intensity(row: dict) -> float:
    return row["gflop"] / row["gbyte"]


def _rates(row: dict) -> tuple[float, float]:
    """GFLOP/s of ours and of PyTorch's best (ours again, where no peer was timed)."""
    m = ratios_of(row)
    return tuple(1e3 * row["gflop"] / m.ms[name] for name in ("ours", m.best or "ours"))


def _inches(axes) -> tuple[float, float]:
    box = axes.get_position()
    width, height = axes.figure.get_size_inches()
    return box.width * width, box.height * height


def _plain(value: float, _position) -> str:
    return f"{value:g}"


def _ticker():
    import matplotlib.ticker
    return matplotlib.ticker
