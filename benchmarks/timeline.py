"""The timeline of a training step of AlexNet: which layer computes when, forward, backward and in the update.

    python benchmarks/timeline.py                           on this machine's processor, 32 images
    python benchmarks/timeline.py --device cuda --batch 128    on the GPU, by its own clock

The step runs layer by layer as Python calls them; on a GPU, the title also gives its time when captured and replayed.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from alexnet_twins import DECAY, RECIPE, batch_of, our_captured_training, our_network
from limits import machine

from minicnn.backend.ops import Ops
from minicnn.train.sgd import SGD
from minicnn.train.watch.timeline import ROWS, STEPS, WARM, Bar, clock_of, step_of
from minicnn.visualize.style import BLUE, GREEN, INK, LINE, ORANGE, QUIET, RED, new_figure, quiet_axes, save_png

COLOURS = {"Conv2d": BLUE, "Linear": GREEN, "LRN": ORANGE, "MaxPool2d": RED, "SGD": INK}    # others are QUIET
NAMES = {"Conv2d": "convolution", "Linear": "fully connected", "LRN": "normalisation", "MaxPool2d": "pooling",
         "SGD": "update"}
ROOM = 0.035                    # of the whole: a bar that is wider has its name in it


def main() -> None:
    title, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=title, epilog=rest.strip("\n"),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:fp16 ... (default: cpu)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="images (default: 32)")
    parser.add_argument("--out", type=Path, default=Path("timeline.png"), metavar="FILE", help="the picture (PNG)")
    options = parser.parse_args()
    if options.batch < 1:
        parser.error("--batch must be at least 1")
    net = our_network(device=options.device)
    images, labels = batch_of(options.batch)
    bars = step_of(net, images, labels, SGD(net.params, decay=DECAY, **RECIPE))
    title = f"{where(net.ops)}, {options.batch} images: {1e3 * bars[-1][-1]:.2f} ms layer by layer"
    if net.ops.capture is not None:
        title += f", {1e3 * captured_seconds(net, images, labels):.2f} ms replayed"
    print(f"step      {title}\npicture   {draw_timeline(bars, title, options.out)}")


def where(ops: Ops) -> str:
    """The machine that computes, and how."""
    return f"{ops.device.describe().partition(',')[0]}, {ops.spec}" if ops.name == "cuda" else machine()


def captured_seconds(net, images, labels) -> float:
    """Median seconds of a step that is replayed."""
    clock, (_, step) = clock_of(net.ops), our_captured_training(net, images, labels)
    marks = [clock.record_event()]
    for _ in range(WARM + STEPS):
        step()
        marks.append(clock.record_event())
    return statistics.median(clock.seconds(*pair) for pair in zip(marks[WARM:], marks[WARM + 1:], strict=False))


def draw_timeline(bars: list[Bar], title: str, path: Path) -> Path:
    """Bars over milliseconds, a row for each part of the step; narrow ones go without a name."""
    figure = new_figure(2.9)
    axes = figure.add_axes((0.085, 0.2, 0.895, 0.56))
    quiet_axes(axes)
    axes.grid(False)
    length = 1e3 * bars[-1][-1]
    for name, kind, row, begin, end in bars:
        left, width = 1e3 * begin, 1e3 * (end - begin)
        axes.barh(ROWS.index(row), width, left=left, height=0.62, color=COLOURS.get(kind, QUIET), edgecolor="white",
                  linewidth=0.4)
        if width > ROOM * length:
            axes.text(left + width / 2, ROWS.index(row), name, ha="center", va="center", color="white", fontsize=7.5)
    axes.set_yticks(range(len(ROWS)), ROWS)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(ROWS) - 0.5, -0.5)
    axes.set_xlim(0, length)
    axes.set_xlabel("milliseconds", color=QUIET, fontsize=9)
    axes.spines["left"].set_color(LINE)
    figure.text(0.085, 0.9, title, color=INK, fontsize=11, weight="bold")
    at = 0.085
    for kind in [*dict.fromkeys(kind for _, kind, *_ in bars if kind in NAMES), None]:
        figure.text(at, 0.815, "■ ", color=COLOURS.get(kind, QUIET), fontsize=10)
        figure.text(at + 0.016, 0.815, NAMES.get(kind, "other"), color=INK, fontsize=9)
        at += 0.035 + 0.0095 * len(NAMES.get(kind, "other"))
    return save_png(figure, path)


if __name__ == "__main__":
    main()
