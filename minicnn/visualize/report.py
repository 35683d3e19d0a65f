"""The pictures of a run: curves.png while it goes, and at its end conv1.png and predictions.png.

Their captions say what they can show, and what they cannot.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.data.images import central_square
from minicnn.evaluate.evaluate import Evaluation
from minicnn.layers.dropout import Dropout
from minicnn.param import layer_of
from minicnn.train.loop import METRICS
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.state import first_kernels
from minicnn.visualize.curves import draw_curves
from minicnn.visualize.filters import draw_filters
from minicnn.visualize.predictions import draw_predictions

PREDICTIONS = "predictions.png"
SHOWN = 8                       # held-out photographs on the sheet, as in Figure 4 of the paper
PAPER_IMAGES = 90 * 1_200_000   # what the kernels of the paper's Figure 3 had seen


def draw_progress(folder: str | os.PathLike, title: str, net=None) -> Path:
    """curves.png of the run in `folder`, as far as its metrics go; returns its path.   net: what was trained."""
    records = read_metrics(Path(folder) / METRICS)
    run = next((record for record in records if record["kind"] == "run"), {})
    share = run["majority"]["val"] if run else None
    return draw_curves(records, Path(folder) / "curves.png", title, share, training_label(run, net),
                       validation_label(run))


def training_label(run: dict, net) -> str:
    """How the training accuracy is measured, for the record of a run: on crops, with dropout, or as the validation."""
    preprocess = run.get("recipe", {}).get("preprocess", {})
    crop, size = preprocess.get("crop"), preprocess.get("size")
    how = ["on crops"] if crop and size and crop < size else []
    if net is not None and any(isinstance(node.layer, Dropout) for node in net.nodes):
        how.append("with dropout")
    return "training" + (f", {' and '.join(how)}" if how else "")


def validation_label(run: dict) -> str:
    """With which weights was validated, for the record of a run."""
    return "validation" + (", averaged weights" if run.get("recipe", {}).get("average") else "")


def draw_run(folder: str | os.PathLike, *, net, title: str, images_seen: int, epochs: int, held_out,
             result: Evaluation, start: np.ndarray | None = None, alexnet: bool = False) -> list[Path]:
    """Draw all pictures of the run in `folder` into it; returns the paths.

    title: data and net in a few words.   images_seen, epochs: training behind the weights
    that `net` holds now.   held_out: a Dataset, and `result` what the net makes of its images.
    start: the first convolution's weights before training, where they are known.   alexnet: compare the kernels with
    those in the paper.
    """
    folder = Path(folder)
    paths = [draw_progress(folder, title, net)]

    first = first_kernels(net)
    if first and net.params[first].data.shape[2] in (1, 3):
        caption = f"Best epoch, {epochs} of {_epochs_done(folder, epochs)}; {images_seen:,} images shown until then."
        paths.append(_draw_first_layer(folder / f"{layer_of(first)}.png", net, first, title, caption, images_seen,
                                       held_out, start, alexnet))

    return [*paths, draw_sheet(folder, title, held_out, result)]


def _epochs_done(folder: Path, at_least: int) -> int:
    """Epochs in the metrics of the run."""
    return max((record["epoch"] for record in read_metrics(folder / METRICS) if record["kind"] == "epoch"),
               default=at_least)


def draw_sheet(folder: str | os.PathLike, title: str, held_out, result: Evaluation, name: str = PREDICTIONS) -> Path:
    """A picture as Figure 4: some held-out photographs and the net's best guesses; returns its path."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(held_out))[:SHOWN])
    labels, shown = held_out.labels[chosen], result.probabilities[chosen]
    right = int((shown.argmax(axis=1) == labels).sum())
    return draw_predictions(
        np.stack([central_square(held_out.read(int(i))) for i in chosen]), labels, shown, held_out.classes,
        Path(folder) / name, f"{title}: {len(chosen)} held-out photographs",
        f"{len(chosen)} of {len(held_out):,}, drawn at random; {right} of them correct. In bold the true class, its "
        "bar is green.")


def percent(share: float) -> str:
    """0.12 -> "12 %"; two digits of what is small, which is not nothing."""
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def _draw_first_layer(path: Path, net, first: str, title: str, caption: str, images_seen: int, held_out, start,
                      alexnet: bool) -> Path:
    """The kernels of the layer that sees the image, and in the caption how far they are from where they began."""
    weights = net.ops.to_host(net.params[first].data)
    R, S, C, K = weights.shape
    if start is not None and start.shape != weights.shape:      # 0.1.0 kept the first parameter, whatever it was
        start = None
    if start is not None:
        moved = np.linalg.norm(weights - start) / np.linalg.norm(start)
        caption += f" The kernels are {percent(moved)} of their initial length away from their initial values"
        caption += "; what looks like noise above is the initialisation." if moved < 0.5 else "."
    short = images_seen < 0.1 * PAPER_IMAGES
    if alexnet:
        caption += (" Figure 3 of the paper, with its edges and colour blobs, "
                    f"{'took' if short else 'was drawn after'} {PAPER_IMAGES / 1e6:.0f} million images.")
    sample = held_out.read(0)
    if (sample == sample[:, :, :1]).all():
        decay = ", and a coloured change is weight decay of the initial values" if short and start is not None else ""
        caption += f" These photographs are grey: what the three colour planes learn from them is the same{decay}."
    return draw_filters(weights, path, f"{title}: the {K} kernels of {layer_of(first)}, {R}x{S}x{C}", caption,
                        groups=2 if alexnet and K == 96 else 1, start=start if short else None)
