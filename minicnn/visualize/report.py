"""The three pictures of a run: curves.png, conv1.png and predictions.png, with captions that say what they can show."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.visualize.curves import draw_curves
from minicnn.visualize.filters import draw_filters
from minicnn.visualize.predictions import draw_predictions

SHOWN = 8                       # held-out photographs on the sheet, as in Figure 4 of the paper
PAPER_IMAGES = 90 * 1_200_000   # what the kernels of the paper's Figure 3 had seen


def draw_run(folder: str | os.PathLike, *, net, title: str, records: list[dict], images_seen: int, epochs: int,
             held_out, probabilities: np.ndarray) -> list[Path]:
    """Draw into `folder`; returns the paths.

    title: data and net in a few words.   records: of metrics.jsonl.   images_seen, epochs: training behind the weights
    that `net` holds now.   held_out: a Dataset, and what the net makes of its images, probabilities (len, K).
    """
    folder = Path(folder)
    share = next((r["majority"]["val"] for r in records if r["kind"] == "run"), None)
    paths = [draw_curves(records, folder / "curves.png", title, share)]

    first = next((node for node in net.nodes if len(node.layer.params.get("w", np.empty(0)).data.shape) == 4), None)
    if first is not None and first.layer.params["w"].data.shape[2] in (1, 3):
        paths.append(_draw_first_layer(folder / f"{first.name}.png", net, first, title, images_seen, epochs, held_out))

    chosen = np.sort(np.random.default_rng(0).permutation(len(held_out))[:SHOWN])
    labels, shown = held_out.labels[chosen], probabilities[chosen]
    right = int((shown.argmax(axis=1) == labels).sum())
    paths.append(draw_predictions(
        np.stack([held_out.read(int(i)) for i in chosen]), labels, shown, held_out.classes, folder / "predictions.png",
        f"{title}: {len(chosen)} held-out photographs",
        f"{len(chosen)} of {len(held_out):,}, drawn at random; {right} of them right. In bold the true class, its "
        "bar is green."))
    return paths


def _draw_first_layer(path: Path, net, node, title: str, images_seen: int, epochs: int, held_out) -> Path:
    """The kernels of the layer that sees the image, and in the caption how far they are from where they began."""
    weights = net.ops.to_host(node.layer.params["w"].data)
    R, S, C, K = weights.shape
    init, shape = node.layer.initial_values()["w"]
    start = init(net.seed, node.layer.params["w"].name, shape, net.dtype)
    moved = np.linalg.norm(weights - start) / np.linalg.norm(start)
    caption = (f"After {epochs} epoch{'s' if epochs != 1 else ''}, {images_seen:,} images shown. The kernels are "
               f"{100 * moved:.0f} % of their initial length away from the random numbers they began as")
    short = images_seen < 0.1 * PAPER_IMAGES
    if short:
        caption += ("; what looks like noise above is that beginning. Figure 3 of the paper, with its edges and colour "
                    f"blobs, took {PAPER_IMAGES / 1e6:.0f} million images.")
    else:
        caption += f". Figure 3 of the paper was drawn after {PAPER_IMAGES / 1e6:.0f} million images."
    sample = held_out.read(0)
    if (sample == sample[:, :, :1]).all():
        caption += (" These photographs are grey: what the three colour planes learn from them is the same"
                    + (", and a coloured change is the weight decay of the beginning." if short else "."))
    return draw_filters(weights, path, f"{title}: the {K} kernels of {node.name}, {R}x{S}x{C}", caption,
                        groups=2 if K == 96 else 1, start=start if short else None)
