"""The pictures of a run: curves.png while it goes, and at its end conv1.png and predictions.png.

Their captions say what they can show, and what they cannot.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.evaluate.evaluate import Evaluation
from minicnn.train.loop import METRICS
from minicnn.train.runs.metrics import read_metrics
from minicnn.visualize.curves import draw_curves
from minicnn.visualize.filters import draw_filters
from minicnn.visualize.predictions import draw_predictions

SHOWN = 8                       # held-out photographs on the sheet, as in Figure 4 of the paper
PAPER_IMAGES = 90 * 1_200_000   # what the kernels of the paper's Figure 3 had seen


def draw_progress(folder: str | os.PathLike, title: str) -> Path:
    """curves.png of the run in `folder`, as far as its metrics go; returns its path."""
    records = read_metrics(Path(folder) / METRICS)
    share = next((record["majority"]["val"] for record in records if record["kind"] == "run"), None)
    return draw_curves(records, Path(folder) / "curves.png", title, share)


def draw_run(folder: str | os.PathLike, *, net, title: str, images_seen: int, epochs: int, held_out,
             result: Evaluation, start: np.ndarray | None = None) -> list[Path]:
    """Draw all pictures of the run in `folder` into it; returns the paths.

    title: data and net in a few words.   images_seen, epochs: training behind the weights
    that `net` holds now.   held_out: a Dataset, and `result` what the net makes of its images.
    start: the first layer's weights before training, where they are known.
    """
    folder = Path(folder)
    paths = [draw_progress(folder, title)]

    first = next((node for node in net.nodes if len(node.layer.params.get("w", np.empty(0)).data.shape) == 4), None)
    if first is not None and first.layer.params["w"].data.shape[2] in (1, 3):
        paths.append(_draw_first_layer(folder / f"{first.name}.png", net, first, title, images_seen, epochs, held_out,
                                       start))

    return [*paths, draw_sheet(folder, title, held_out, result)]


def draw_sheet(folder: str | os.PathLike, title: str, held_out, result: Evaluation) -> Path:
    """predictions.png as in Figure 4: some held-out photographs and the net's best guesses; returns its path."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(held_out))[:SHOWN])
    labels, shown = held_out.labels[chosen], result.probabilities[chosen]
    right = int((shown.argmax(axis=1) == labels).sum())
    return draw_predictions(
        np.stack([held_out.read(int(i)) for i in chosen]), labels, shown, held_out.classes,
        Path(folder) / "predictions.png", f"{title}: {len(chosen)} held-out photographs",
        f"{len(chosen)} of {len(held_out):,}, drawn at random; {right} of them correct. In bold the true class, its "
        "bar is green.")


def _draw_first_layer(path: Path, net, node, title: str, images_seen: int, epochs: int, held_out, start) -> Path:
    """The kernels of the layer that sees the image, and in the caption how far they are from where they began."""
    weights = net.ops.to_host(node.layer.params["w"].data)
    R, S, C, K = weights.shape
    caption = f"After {epochs} epoch{'s' if epochs != 1 else ''}, {images_seen:,} images shown."
    if start is not None:
        moved = np.linalg.norm(weights - start) / np.linalg.norm(start)
        caption += f" The kernels are {100 * moved:.0f} % of their initial length away from their initial values"
        caption += "; what looks like noise above is the initialisation." if moved < 0.5 else "."
    short = images_seen < 0.1 * PAPER_IMAGES
    caption += (" Figure 3 of the paper, with its edges and colour blobs, "
                f"{'took' if short else 'was drawn after'} {PAPER_IMAGES / 1e6:.0f} million images.")
    sample = held_out.read(0)
    if (sample == sample[:, :, :1]).all():
        decay = ", and a coloured change is weight decay of the initial values" if short and start is not None else ""
        caption += f" These photographs are grey: what the three colour planes learn from them is the same{decay}."
    return draw_filters(weights, path, f"{title}: the {K} kernels of {node.name}, {R}x{S}x{C}", caption,
                        groups=2 if K == 96 else 1, start=start if short else None)
